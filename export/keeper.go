package export

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export/journal"
)

// ShipLockEnv tells a shipper which of its file descriptors is the journal's
// shipping lock, taken by who started it: from then on no other is started.
const ShipLockEnv = "SHIMTRACE_SHIP_LOCK_FD"

// shipperName is the program that ships, if the configuration names no other.
const shipperName = "shimtrace"

// Pauses between two starts of a shipper that does not stay, by any process.
const (
	minRestart = time.Second
	maxRestart = time.Minute
)

// Linger is long enough for Close to see a shipper replaced that just died.
const Linger = minRestart

// Keeper sees to it that a process ships the journal to the collector: the
// operator's tool, as "shimtrace ship --journal DIR", detached, one per host. Any
// number of processes may look after it at once.
type Keeper struct {
	cfg  config.Config
	logf func(format string, args ...any)

	mu     sync.Mutex
	closed bool
	logged string // the last error logged
	pause  time.Duration
	timer  *time.Timer
	due    time.Time // when the timer ends
}

// NewKeeper returns the Keeper for a configuration. What hinders it is logged
// with logf, once for each cause.
func NewKeeper(cfg config.Config, logf func(format string, args ...any)) *Keeper {
	return &Keeper{cfg: cfg, logf: logf, pause: minRestart}
}

// Ensure starts a shipper if there is an endpoint and none runs. It costs three
// system calls while one runs, so it is called after every append: a shipper that
// found nothing for a while has ended.
func (k *Keeper) Ensure() {
	if k.cfg.Export.Endpoint == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	lock, err := journal.LockShipping(k.cfg.Journal.Dir)
	if errors.Is(err, journal.ErrShipped) {
		return
	}
	if err != nil {
		k.report(err)
		return
	}
	defer lock.Close() // the child has its own
	if wait := k.pause - sinceStart(lock); wait > 0 {
		k.later(wait)
		return
	}
	if err := k.start(lock); err != nil {
		k.report(err)
		k.pause = min(2*k.pause, maxRestart)
		k.later(k.pause)
	}
}

// Close ends the looking after, not the shipper. A start that is put off is waited
// for if it is due soon enough: there may be nobody else left to make it.
func (k *Keeper) Close(linger time.Duration) {
	k.mu.Lock()
	wait := time.Until(k.due)
	k.mu.Unlock()
	if wait > 0 && wait <= linger {
		time.Sleep(wait)
		k.Ensure()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
}

// later looks again after a while, for nothing may be appended until then.
func (k *Keeper) later(wait time.Duration) {
	if k.timer != nil {
		k.timer.Stop()
	}
	k.timer = time.AfterFunc(wait, k.Ensure)
	k.due = time.Now().Add(wait)
}

func (k *Keeper) report(err error) {
	if text := err.Error(); text != k.logged {
		k.logged = text
		k.logf("no spans are shipped: %v", err)
	}
}

// sinceStart is how long ago a shipper was last started, by the lock file's time of
// modification: so that the processes of many pods together do not start a failing
// one again and again.
func sinceStart(lock *os.File) time.Duration {
	info, err := lock.Stat()
	if err != nil || info.Size() == 0 {
		return maxRestart // never
	}
	if since := time.Since(info.ModTime()); since >= 0 {
		return since
	}
	return maxRestart // the clock was set back
}

func (k *Keeper) start(lock *os.File) error {
	_, _ = lock.WriteAt([]byte{'\n'}, 0) // see sinceStart; a full disk is no reason not to ship
	program, err := findShipper(k.cfg.Export.Shipper)
	if err != nil {
		return err
	}
	args := []string{"ship", "--journal", k.cfg.Journal.Dir}
	if k.cfg.Runtime != "" {
		args = append(args, "--runtime", k.cfg.Runtime)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), ShipLockEnv+"=3")
	cmd.ExtraFiles = []*os.File{lock}
	// What containerd's ancestors have left open to us is not for it either.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// In a session of its own it outlives us and gets none of our signals.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start of the shipper %s: %w", program, err)
	}
	started := time.Now()
	go func() {
		err := cmd.Wait() // it would stay a zombie otherwise
		k.ended(program, err, time.Since(started))
	}()
	return nil
}

// ended sets the pause before the next start by how the last shipper fared.
func (k *Keeper) ended(program string, err error, lived time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil || lived > maxRestart {
		k.pause, k.logged = minRestart, ""
		return
	}
	if k.closed {
		return
	}
	k.report(fmt.Errorf("the shipper %s ended early: %w", program, err))
	k.pause = min(2*k.pause, maxRestart)
	k.later(k.pause)
}

// findShipper returns the configured program, or the tool beside our own binary
// (not the link by which we were started), or on PATH.
func findShipper(configured string) (string, error) {
	if configured != "" {
		p, err := exec.LookPath(configured)
		if err != nil {
			return "", fmt.Errorf("export.shipper: %w", err)
		}
		return p, nil
	}
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			if p, err := exec.LookPath(filepath.Join(filepath.Dir(self), shipperName)); err == nil {
				return p, nil
			}
		}
	}
	p, err := exec.LookPath(shipperName)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside the shim nor on PATH: install it, or name it in export.shipper", shipperName)
	}
	return p, nil
}

// Client returns the client with Ensure after every upload.
func (k *Keeper) Client(c otlptrace.Client) otlptrace.Client { return keptClient{c, k} }

type keptClient struct {
	otlptrace.Client
	keeper *Keeper
}

// UploadTraces implements [otlptrace.Client].
func (c keptClient) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	err := c.Client.UploadTraces(ctx, spans)
	c.keeper.Ensure()
	return err
}
