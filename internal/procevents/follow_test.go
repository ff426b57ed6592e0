package procevents

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// open opens the host's events, or skips the test where there are none.
func openHere(t testing.TB) *Source {
	t.Helper()
	s, err := Open()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(s.Close)
	return s
}

// followed follows what the test does until done reports true of the reports so far.
func followed(t *testing.T, s *Source, f *follower, done func() bool) {
	t.Helper()
	end := time.Now().Add(2 * time.Minute)
	for !done() {
		if time.Now().After(end) {
			t.Fatal("it is not reported in time")
		}
		lost, err := s.Read(5*time.Millisecond, f.take)
		if err != nil {
			t.Fatal(err)
		}
		if lost > 0 {
			f.dropped(lost)
		}
		f.settle(Now())
	}
}

// TestFollow: helpers of this process are reported from exec to exit, with what they
// began, and nobody else's are.
func TestFollow(t *testing.T) {
	s := openHere(t)
	f := newFollower("/proc")
	var all []Report
	ended := func(pid int) *Report {
		for i := range all {
			if all[i].Kind == Ended && all[i].PID == pid {
				return &all[i]
			}
		}
		return nil
	}
	if !f.follow(os.Getpid(), 0, &Root{Report: func(r Report) { all = append(all, r) }}) {
		t.Fatal("this process is not there")
	}
	cmd := exec.Command("/bin/sh", "-c", "read go; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; /bin/sleep 0.02; exit 3")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	waited := make(chan error, 1)
	go func() { waited <- cmd.Wait() }()
	// Of a process that is gone before it can be looked at nothing below is followed.
	followed(t, s, f, func() bool {
		return slices.ContainsFunc(all, func(r Report) bool { return r.Kind == Began && r.PID == pid })
	})
	in.Close()
	followed(t, s, f, func() bool { return ended(pid) != nil })
	<-waited
	var shell, sleep *Report
	for i, r := range all {
		switch {
		case r.Kind != Began:
		case r.PID == pid:
			shell = &all[i]
		case r.Above == pid:
			sleep = &all[i]
		}
	}
	if shell == nil || sleep == nil {
		t.Fatalf("%+v", all)
	}
	end := ended(pid)
	if shell.Above != 0 || shell.Start != end.Start || shell.Forked > shell.At || shell.At > end.At || end.Status != 3<<8 {
		t.Errorf("%+v, %+v", shell, end)
	}
	if program := shell.Program; program != "sh" && program != "" {
		t.Errorf("the shell is called %q", program)
	}
	if end.CPU < 0 || end.CPU > end.At-shell.At+20*time.Millisecond {
		t.Errorf("it has taken %v of %v", end.CPU, end.At-shell.At)
	}
	if e := ended(sleep.PID); e == nil || e.Status != 0 {
		t.Errorf("%+v, %+v", sleep, e)
	}
}

// TestOver: the end of a root is reported, after all that it has executed.
func TestOver(t *testing.T) {
	s := openHere(t)
	f := newFollower("/proc")
	root := exec.Command("/bin/sh", "-c", "read go; for i in 1 2 3; do /bin/true; done; /bin/false; exit 1")
	in, err := root.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := root.Start(); err != nil {
		t.Fatal(err)
	}
	var all []Kind
	var helpers []int // that have begun and not ended
	ends := 0
	if !f.follow(root.Process.Pid, 0, &Root{Report: func(r Report) {
		all = append(all, r.Kind)
		switch r.Kind {
		case Began:
			helpers = append(helpers, r.PID)
		case Ended:
			ends++
			if i := slices.Index(helpers, r.PID); i >= 0 {
				helpers = slices.Delete(helpers, i, i+1)
			} else {
				t.Errorf("%d ends before it begins", r.PID)
			}
		}
	}}) {
		t.Fatal("it is not there")
	}
	in.Close()
	waited := make(chan error, 1)
	go func() { waited <- root.Wait() }()
	followed(t, s, f, func() bool { return slices.Contains(all, Over) })
	<-waited
	// A helper's end may be certain only after the next one has begun.
	if len(all) != 10 || all[0] != Listed || all[9] != Over || ends != 4 || len(helpers) > 0 {
		t.Errorf("reported are %v; %v have not ended", all, helpers)
	}
	if len(f.nodes) > 0 || len(f.roots) > 0 {
		t.Errorf("%d processes and %d roots are still followed", len(f.nodes), len(f.roots))
	}
	// If the kernel drops that event, it is missed.
	all = nil
	gone := exec.Command("/bin/sleep", "60")
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	if !f.follow(gone.Process.Pid, 0, &Root{Report: func(r Report) { all = append(all, r.Kind) }}) {
		t.Fatal("it is not there")
	}
	_ = gone.Process.Kill()
	_ = gone.Wait()
	f.dropped(1)
	if want := []Kind{Listed, Over}; !slices.Equal(all, want) || len(f.roots) > 0 {
		t.Errorf("reported are %v, want %v", all, want)
	}
}

// TestOverflow: events that nobody has read are counted by the kernel, and the follower
// goes on.
func TestOverflow(t *testing.T) {
	s := openHere(t)
	if err := unix.SetsockoptInt(s.events, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil { // the least that there is
		t.Fatal(err)
	}
	f := newFollower("/proc")
	var dropped int
	var last *exec.Cmd
	ended := false
	if !f.follow(os.Getpid(), 0, &Root{Report: func(r Report) {
		if r.Kind == Dropped {
			dropped += r.Lost
		}
		ended = ended || last != nil && r.Kind == Ended && r.PID == last.Process.Pid
	}}) {
		t.Fatal("this process is not there")
	}
	for range 40 {
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	followed(t, s, f, func() bool { return dropped > 1 })
	if err := unix.SetsockoptInt(s.events, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
		t.Fatal(err)
	}
	last = exec.Command("/bin/true")
	if err := last.Start(); err != nil {
		t.Fatal(err)
	}
	defer last.Wait()
	followed(t, s, f, func() bool { return ended })
	t.Logf("%d events were dropped", dropped)
}

// TestWatcher: whoever asks is told, until he leaves; then nothing is read.
func TestWatcher(t *testing.T) {
	openHere(t).Close()
	var w Watcher
	defer w.Close()
	reports := make(chan Report, 1000)
	r := &Root{Report: func(r Report) { reports <- r }}
	w.Follow(os.Getpid(), 0, r, func(err error) { t.Error(err) })
	for (<-reports).Kind != Listed {
	}
	cmd := exec.Command("/bin/true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for r := range reports {
		if r.Kind == Ended && r.PID == cmd.Process.Pid {
			break
		}
	}
	gone := make(chan error)
	w.Follow(1<<22+1, 0, &Root{}, func(err error) { gone <- err })
	if err := <-gone; !errors.Is(err, host.ErrGone) {
		t.Error(err)
	}
	over := w.over
	w.Leave(r)
	<-over
	w.Follow(os.Getpid(), 0, r, func(err error) { t.Error(err) }) // again
	for (<-reports).Kind != Listed {
	}
	w.Close()
	w.Follow(os.Getpid(), 0, r, func(err error) { gone <- err })
	if err := <-gone; err == nil || w.Err() == nil {
		t.Error("it goes on")
	}
}

// BenchmarkBusyHost has as many processes made as the processors make, none of them ours,
// while one is followed, and reports what reading their events takes of a core, and by how
// much each takes longer if somebody listens.
func BenchmarkBusyHost(b *testing.B) {
	openHere(b).Close()
	program, err := exec.LookPath("busybox") // which is linked statically, as a rule
	if err != nil {
		b.Skip(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as the guard
	quiet := exec.Command("/bin/sleep", "1000")
	if err := quiet.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = quiet.Process.Kill()
		_ = quiet.Wait()
	}()
	const each = 2000
	run := func() time.Duration {
		began := time.Now()
		var all []*exec.Cmd
		for range runtime.NumCPU() {
			cmd := exec.Command(program, "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s true; i=$((i+1)); done", each, program))
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			all = append(all, cmd)
		}
		for _, cmd := range all {
			if err := cmd.Wait(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	used := func() time.Duration {
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	run()
	var with, without, spent, idle time.Duration
	for b.Loop() {
		before := used()
		without += run()
		idle += used() - before
		var w Watcher
		listed := make(chan bool, 10)
		w.Follow(quiet.Process.Pid, 0, &Root{Report: func(Report) { listed <- true }}, func(err error) { b.Error(err) })
		<-listed
		before = used()
		with += run()
		spent += used() - before
		w.Close()
	}
	execs := float64(b.N * each * runtime.NumCPU())
	b.ReportMetric(execs/with.Seconds(), "execs/s")
	b.ReportMetric(float64(spent-idle)/float64(with)*100, "%core")
	b.ReportMetric(float64(with-without)*float64(runtime.NumCPU())/execs/1e3, "µs-longer/exec")
}
