package process

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/relay"
)

const (
	// guardGCPercent has the guard collect garbage early: it is to stay small.
	guardGCPercent = 10
	// guardEvery is how often the guard is pinged, by all relays together.
	guardEvery = 30 * time.Second
	// maxGuardLog bounds the guard's log in bytes.
	maxGuardLog = 64 << 10
)

// keepGuard returns what sees to it that the relays of a state directory have a guard.
func keepGuard(stateDir string, log *slog.Logger) *keeper.Keeper {
	return keeper.New(keeper.Options{
		Lock:    guard.LockPath(stateDir),
		Program: os.Executable,
		Args:    []string{command.FlagStateDir, stateDir, command.Guard},
		Every:   guardEvery,
		Without: "pods end with their relays",
		Name:    "guard",
		Logf:    func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...)) },
	})
}

// guard is the life of the host's guard. It answers pings as long as it answers relays.
func (p process) guard() int {
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP, unix.SIGINT)
	debug.SetGCPercent(guardGCPercent)
	runtime.GOMAXPROCS(1) // Go keeps memory for each processor that it uses
	if p.Check {
		fmt.Println(guard.Version)
		return 0
	}
	if p.StateDir == "" {
		fmt.Fprintln(os.Stderr, "guard is run by relays, not by hand")
		return 2
	}
	if err := private.MakeDir(p.StateDir); err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		return 1
	}
	path := guard.LockPath(p.StateDir)
	lock, files := keeper.Inherited(path)
	if lock == nil {
		var err error
		if lock, err = host.LockFile(path, unix.LOCK_EX, 0); err != nil {
			fmt.Fprintln(os.Stderr, "guard:", err)
			return 1
		}
	}
	defer lock.Close()
	log := newGuardLog(p.StateDir)
	o := guard.Options{
		Dir:     p.StateDir,
		Moved:   handover.Progress,
		VSOCK:   listen.OpenVSOCK,
		Build:   buildVersion(),
		Replace: func(program string, listener, port int) error { return p.becomeGuard(program, lock, listener, port) },
		Settle: func() {
			debug.FreeOSMemory()
			relay.UnmapProgram()
		},
		Logf: log.printf,
	}
	for i, to := range []*int{&o.Listener, &o.Port} {
		if i < len(files) {
			*to = inheritedFD(files[i])
		}
	}
	answering, err := keeper.Answer(path, func() string {
		_ = guard.Ping(context.Background(), p.StateDir)
		return ""
	}, nil)
	if err != nil {
		log.printf("guard: %v", err)
	} else {
		defer answering.Close()
	}
	watching, stop := context.WithCancel(context.Background())
	defer stop()
	go guardCollect(watching, p.StateDir, log.printf)
	if err := guard.Run(context.Background(), o); err != nil {
		log.printf("%v", err)
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// inheritedFD returns a descriptor that a guard has left to this one, as a number.
func inheritedFD(f *os.File) int {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	return fd
}

// becomeGuard executes another guard in the place of this one, which goes on if that
// fails. The sockets stay open, so that nobody who connects is refused.
func (p process) becomeGuard(program string, lock *os.File, listener, port int) error {
	kept := []int{int(lock.Fd()), listener}
	if port != 0 {
		kept = append(kept, port)
	}
	env := keeper.KeptEnv + "="
	for _, fd := range kept {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
		env += strconv.Itoa(fd) + " "
	}
	err := syscall.Exec(program, []string{program, command.FlagStateDir, p.StateDir, command.Guard}, append(os.Environ(), env))
	for _, fd := range kept {
		unix.CloseOnExec(fd)
	}
	return fmt.Errorf("execute %s: %w", program, err)
}

// guardLog is a file in the state directory. A full one is renamed, in the place of the one
// before it, and a new one begun: the directory is memory, most likely.
type guardLog struct{ path string }

func newGuardLog(dir string) guardLog { return guardLog{filepath.Join(dir, "guard.log")} }

func (l guardLog) printf(format string, args ...any) {
	f, err := private.Open(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > maxGuardLog {
		_ = os.Rename(l.path, l.path+".1")
		if f, err = private.Open(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
			return
		}
		defer f.Close()
	}
	_, _ = io.WriteString(f, time.Now().UTC().Format(time.RFC3339)+" "+fmt.Sprintf(format, args...)+"\n")
}

// buildVersion says what this program was made of.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return guard.BuildOf(info)
}
