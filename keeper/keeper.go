package keeper

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pauses between two starts of a process that does not stay, by any Keeper.
const (
	minRestart = time.Second
	maxRestart = time.Minute
)

// Linger is long enough for Close to see a process replaced that just died.
const Linger = minRestart

// Options say which process is to be there.
type Options struct {
	// Lock is the path of the file whose lock the process holds while it lives. It
	// must be in a directory that exists.
	Lock string
	// Program is the program and Args are its arguments.
	Program func() (string, error)
	Args    []string
	// Files are left to the process beside the lock; nil: none. They are asked for
	// just before the start, which their error hinders, and closed afterwards.
	Files func() ([]*os.File, error)
	// Without says what is not done without the process, Name what it is, for the
	// log: "no spans are shipped", "shipper".
	Without, Name string
	// Logf is told what hinders the Keeper, once for each cause.
	Logf func(format string, args ...any)
}

// Keeper sees to it that a process is there, one per host. Any number of processes
// may have a Keeper of it at once.
type Keeper struct {
	opts Options

	mu     sync.Mutex
	closed bool
	logged string // the last error logged
	pause  time.Duration
	timer  *time.Timer
	due    time.Time // when the timer ends
}

// New returns a Keeper, which does nothing before Ensure.
func New(opts Options) *Keeper { return &Keeper{opts: opts, pause: minRestart} }

// Ensure starts the process if none runs. It costs three system calls while one
// runs, so that it may be called often.
func (k *Keeper) Ensure() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	lock, err := Lock(k.opts.Lock)
	if errors.Is(err, ErrHeld) {
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

// Close ends the looking after, not the process. A start that is put off is waited
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

// later looks again after a while, for nobody may call Ensure until then.
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
		k.opts.Logf("%s: %v", k.opts.Without, err)
	}
}

// sinceStart is how long ago the process was last started, by the lock file's time
// of modification: so that the Keepers of many pods together do not start a failing
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
	_, _ = lock.WriteAt([]byte{'\n'}, 0) // see sinceStart; a full disk is no reason not to start
	program, err := k.opts.Program()
	if err != nil {
		return err
	}
	files := []*os.File{lock}
	if k.opts.Files != nil {
		more, err := k.opts.Files()
		for _, f := range more {
			defer f.Close()
		}
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	kept := ""
	for i := range files {
		kept += " " + strconv.Itoa(firstKept+i)
	}
	cmd := exec.Command(program, k.opts.Args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), KeptEnv+"="+kept[1:])
	cmd.ExtraFiles = files
	// What containerd's ancestors have left open to us is not for it either.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// In a session of its own it outlives us and gets none of our signals.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start of the %s %s: %w", k.opts.Name, program, err)
	}
	started := time.Now()
	go func() {
		err := cmd.Wait() // it would stay a zombie otherwise
		k.ended(program, err, time.Since(started))
	}()
	return nil
}

// ended sets the pause before the next start by how the last process fared.
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
	k.report(fmt.Errorf("the %s %s ended early: %w", k.opts.Name, program, err))
	k.pause = min(2*k.pause, maxRestart)
	k.later(k.pause)
}
