package keeper

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
)

// Bounds of the pause between two starts of a process that does not stay, by any Keeper.
const (
	minRestart = time.Second
	maxRestart = time.Minute
)

// Linger is long enough for Close to replace a process that has just died.
const Linger = minRestart

// Options say which process to keep running.
type Options struct {
	// Lock is the path of the file whose lock the process holds while it lives. Its
	// directory is made if need be, closed to other users.
	Lock string
	// Program returns the program's path; Args are its arguments. nil: others start the
	// process, and this Keeper only ends it when it does not answer.
	Program func() (string, error)
	Args    []string
	// Files returns files to leave to the process beside the lock; nil: none. It is
	// called just before the start, which its error prevents. If they are sockets,
	// clients wait at them no longer than StartTime for a process that does not get
	// going.
	Files func() ([]*os.File, error)
	// StartTime is how long a process may take to answer its first ping while others wait
	// at sockets that were left to it; 0 means 700 ms.
	StartTime time.Duration
	// Lacks reports, from a running process's answer to a ping, whether it lacks what
	// Files returns; it is then left to it. nil: it lacks nothing.
	Lacks func(answer string) bool
	// Without says what is not done without the process, Name what the process is, both
	// for the log: "no spans are shipped", "shipper".
	Without, Name string
	// Every is the pause between pings, by all Keepers of the process together; 0 means 5
	// s. A process that does not answer is killed and replaced: at once if it is stopped,
	// otherwise after 10 s.
	Every time.Duration
	// Awaited says that others wait for the process. If it does not answer a ping it is
	// replaced in less than half a second, unless it waits for a processor.
	Awaited bool
	// Killing is called just before a process that does not answer is killed, with its
	// last answer; nil: nothing is called. A process whose disk call hangs may not end,
	// and others may wait at its sockets: stuck is then called each time the process is
	// looked at.
	Killing func(answer string) (stuck func())
	// Logf is told what hinders the Keeper, once for each cause.
	Logf func(format string, args ...any)
}

// Keeper keeps a process running, one per host. Any number of processes may have a Keeper
// of it at once.
type Keeper struct {
	opts     Options
	patience time.Duration // with a process that does not answer and is not stopped

	mu     sync.Mutex
	closed bool
	logged string    // the last error logged
	own    mark      // as this Keeper last wrote it
	looked time.Time // when this Keeper last pinged the process
	answer string    // to that ping
	stuck  func()    // from Killing, for a killed process that does not end; else nil
	dying  int       // the pid of that process
	silent time.Time // since when the process does not answer; zero if it does
	timer  *time.Timer
	due    time.Time // when the timer ends

	offered time.Time // when this Keeper last offered what the process lacks
	refused int       // how often in a row that failed
}

// New returns a Keeper, which does nothing before Ensure.
func New(opts Options) *Keeper {
	if opts.Every == 0 {
		opts.Every = defaultEvery
	}
	if opts.StartTime == 0 {
		opts.StartTime = startTime
	}
	return &Keeper{opts: opts, patience: hangTime}
}

// Ensure starts the process if none runs, and replaces it if it does not answer. While
// one runs it costs three system calls, so it may be called often. A ping may take a
// quarter of a second, a replacement more than one.
func (k *Keeper) Ensure() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	if k.opts.Program == nil {
		if lock := k.look(); lock != nil {
			lock.Close()
		}
		return
	}
	lock, err := host.LockFile(k.opts.Lock, unix.LOCK_EX, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err = private.MakeDir(filepath.Dir(k.opts.Lock)); err == nil {
			lock, err = host.LockFile(k.opts.Lock, unix.LOCK_EX, 0)
		}
	}
	if errors.Is(err, host.ErrLocked) {
		if lock = k.look(); lock == nil {
			return
		}
	} else if err != nil {
		k.report(err)
		return
	}
	defer lock.Close() // the child has its own descriptor
	now := time.Now()
	m := readMark(k.opts.Lock)
	if wait := max(m.wait(now), k.own.wait(now)); wait > 0 {
		k.later(wait)
		return
	}
	pause := m.pause()
	if now.Sub(m.next) > maxRestart {
		pause = minRestart // earlier failures no longer matter
	}
	k.leave(mark{now, now.Add(pause)})
	if err := k.start(lock, now); err != nil {
		k.report(err)
		k.failed(now, pause)
	}
}

func (k *Keeper) leave(m mark) {
	k.own = m
	m.write(k.opts.Lock)
}

// failed doubles the pause before the next start.
func (k *Keeper) failed(started time.Time, pause time.Duration) {
	pause = min(2*pause, maxRestart)
	k.leave(mark{started, time.Now().Add(pause)})
	if !k.closed {
		k.later(pause)
	}
}

// Close ends the Keeper, not the process. It waits for a delayed start that is due within
// linger: nobody else may be left to make it.
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

// later calls Ensure after a while, since nobody else may until then.
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

func (k *Keeper) start(lock *os.File, now time.Time) error {
	var process *os.Process // nil: it could not be started
	program, err := k.opts.Program()
	if err != nil {
		return err
	}
	files := []*os.File{lock}
	if k.opts.Files != nil {
		more, err := k.opts.Files()
		if err != nil {
			closeAll(more)
			return err
		}
		started := k.attend(more)
		defer func() { started(process) }()
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
	// The child must not get what containerd's ancestors have left open in this process.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// In its own session it outlives this process and gets none of its signals.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	words := newLastWords()
	if words.File != nil {
		cmd.Stderr = words.File
	}
	if err := cmd.Start(); err != nil {
		words.Close()
		return fmt.Errorf("start of the %s %s: %w", k.opts.Name, program, err)
	}
	process = cmd.Process
	go func() {
		err := cmd.Wait() // else it would stay a zombie
		if text := words.last(); err != nil && text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		words.Close()
		k.ended(program, err, now)
	}()
	return nil
}

// startTime is the default of Options.StartTime.
const startTime = 700 * time.Millisecond

// attend closes the files once the process that they are left to answers. The caller
// passes that process to start, nil if it could not be started. If it does not answer in
// StartTime, for instance because the disk that it is read from hangs, waiting clients
// are refused. If it never answers it is killed.
func (k *Keeper) attend(files []*os.File) (start func(*os.Process)) {
	began := time.Now()
	started := make(chan *os.Process, 1)
	late := time.AfterFunc(k.opts.StartTime, func() { refuse(files) })
	go func() {
		defer closeAll(files)
		defer late.Stop()
		p := <-started
		for p != nil && !k.answers(p) {
			if time.Since(began) > k.patience {
				_ = p.Kill()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func(p *os.Process) { started <- p }
}

// answers reports whether our child answers, or has ended.
func (k *Keeper) answers(p *os.Process) bool {
	now := ping(k.opts.Lock)
	defer now.close()
	return now.pid == p.Pid && !now.silent || errors.Is(p.Signal(unix.Signal(0)), os.ErrProcessDone)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// ended sets the pause before the next start according to how the last process ended,
// unless another one has been started since.
func (k *Keeper) ended(program string, err error, started time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := readMark(k.opts.Lock)
	if m.started.After(started) {
		return
	}
	if err == nil || killed(err) || time.Since(m.started) > maxRestart {
		k.logged = ""
		k.leave(mark{m.started, m.started.Add(minRestart)})
		return
	}
	k.report(fmt.Errorf("the %s %s ended early: %w", k.opts.Name, program, err))
	k.failed(started, max(m.pause(), k.own.pause()))
}

// killed reports whether the error is that of a process that was killed, by somebody or by
// the kernel for want of memory: then the process is not at fault.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == unix.SIGKILL
}
