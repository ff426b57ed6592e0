package keeper

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

const (
	// hangTime is how long a process that is not stopped may leave pings unanswered: a
	// busy machine is no reason to replace it.
	hangTime = 10 * time.Second
	// awaitTime is that time, beyond pingTime, for a process that others wait for and
	// that does not wait for a processor.
	awaitTime = 300 * time.Millisecond
	// defaultEvery is the default of Options.Every.
	defaultEvery = 5 * time.Second
	// killTime bounds the wait for the end of a killed process. After stuckTime it is
	// taken to be stuck.
	killTime  = time.Second
	stuckTime = 100 * time.Millisecond
	// offerAgain is the pause before a Keeper that has failed to leave files tries again.
	offerAgain = time.Minute
)

// look pings the process that holds the lock. If the process does not answer and was
// ended, look returns the lock, otherwise nil.
func (k *Keeper) look() *os.File {
	now := time.Now()
	pause := k.opts.Every * 3 / 4 // Watch's ticks are not exact
	first := k.looked.IsZero() && k.opts.Lacks != nil
	if last, answers := since(k.opts.Lock, now); !first && (now.Sub(k.looked) < pause || !answers || last < pause) {
		return nil
	}
	k.looked = now
	p := ping(k.opts.Lock)
	defer p.close()
	if p.silent && p.pid == k.dying && k.stuck != nil {
		k.stuck()
		k.later(k.opts.Every)
		return nil
	}
	if !p.silent {
		k.silent, k.answer, k.stuck = time.Time{}, p.answer, nil
		answered(k.opts.Lock, now)
		k.offer(p)
		return nil
	}
	if k.silent.IsZero() {
		k.silent = now
	}
	stopped, long := proc.Stopped(p.pid), now.Sub(k.silent) >= k.patience
	switch {
	case stopped, p.pid != 0 && long, k.opts.Awaited && p.hangs(awaitTime):
		if lock := k.end(p, stopped); lock != nil {
			return lock
		}
	case long:
		k.report(fmt.Errorf("the %s does not answer, and is not ours to end", k.opts.Name))
	}
	k.later(k.opts.Every)
	return nil
}

// offer leaves to the process what it lacks. Another Keeper may be doing the same, so
// only a second failure in a row is reported.
func (k *Keeper) offer(p pinged) {
	if p.conn == nil || k.opts.Lacks == nil || !k.opts.Lacks(p.answer) {
		k.refused = 0
		return
	}
	if time.Since(k.offered) < offerAgain && k.refused > 1 {
		return
	}
	k.offered = time.Now()
	files, err := k.opts.Files()
	defer closeAll(files)
	if err == nil {
		err = p.leave(files)
	}
	if err == nil {
		k.refused = 0
		return
	}
	if k.refused++; k.refused > 1 {
		k.report(err)
	}
	k.later(k.opts.Every)
}

// end kills the process and returns its lock; nil if it cannot have it.
func (k *Keeper) end(p pinged, stopped bool) *os.File {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	// If the pid had been reused before that, the connection would have ended.
	if p.wait(time.Millisecond) {
		return nil
	}
	why := "hangs"
	if stopped {
		why = "is stopped"
	}
	k.leave(mark{time.Now(), time.Now()}) // its end does not delay the next start
	k.stuck, k.dying = func() {}, p.pid
	if k.opts.Killing != nil {
		k.stuck = k.opts.Killing(k.answer)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		k.report(fmt.Errorf("the %s, process %d, %s and cannot be ended: %w", k.opts.Name, p.pid, why, err))
		return nil
	}
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, _ := unix.Poll(ended, int(stuckTime.Milliseconds()))
	for killed := time.Now(); n == 0 && time.Since(killed) < killTime; {
		k.stuck()
		n, _ = unix.Poll(ended, int(stuckTime.Milliseconds()))
	}
	if n == 0 {
		k.report(fmt.Errorf("the %s, process %d, %s and does not end: a call of a disk hangs, most likely", k.opts.Name, p.pid, why))
		return nil
	}
	k.opts.Logf("the %s, process %d, %s: it is replaced", k.opts.Name, p.pid, why)
	k.silent, k.stuck = time.Time{}, nil
	lock, err := host.LockFile(k.opts.Lock, unix.LOCK_EX, 0)
	if err != nil {
		return nil // another Keeper was faster
	}
	return lock
}
