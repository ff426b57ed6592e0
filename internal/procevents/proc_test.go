package procevents

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// host is a host whose processes are files.
type fakeHost struct {
	*follower
	t       *testing.T
	dir     string
	reports []string
	started map[int]uint64
	now     time.Duration
}

const shimPID = 100

// newHost returns a host with an inner shim that is followed.
func newHost(t *testing.T, vm bool) *fakeHost {
	h := &fakeHost{t: t, dir: t.TempDir(), started: make(map[int]uint64), now: Now()}
	h.follower = newFollower(host.Proc(h.dir))
	h.process(shimPID, 1, "containerd-shim", "host")
	if !h.follow(shimPID, 0, &Root{VM: vm, Report: h.report}) {
		t.Fatal("the shim is not there")
	}
	h.want("listed")
	return h
}

func (h *fakeHost) report(r Report) {
	text := string(r.Kind)
	if r.PID != 0 {
		text += " " + strconv.Itoa(r.PID)
	}
	for _, more := range []string{r.Program, r.Subcommand, r.Container, r.Exec} {
		if more != "" {
			text += " " + more
		}
	}
	if r.Role != "" {
		text += " (" + string(r.Role) + ")"
	}
	if r.Above != 0 {
		text += fmt.Sprintf(" below %d", r.Above)
	}
	if r.Status != 0 {
		text += fmt.Sprintf(" status %d", r.Status)
	}
	if r.Lost != 0 {
		text += fmt.Sprintf(" lost %d", r.Lost)
	}
	h.reports = append(h.reports, text)
}

// want checks what was reported since it was called before.
func (h *fakeHost) want(reports ...string) {
	h.t.Helper()
	if !slices.Equal(h.reports, reports) {
		h.t.Errorf("reported:\n%s\nwant:\n%s", strings.Join(h.reports, "\n"), strings.Join(reports, "\n"))
	}
	h.reports = nil
}

func (h *fakeHost) write(path, text string) {
	h.t.Helper()
	path = filepath.Join(h.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// process makes a process that executes a command line, somewhere.
func (h *fakeHost) process(pid, parent int, line, where string) {
	h.t.Helper()
	p := strconv.Itoa(pid) + "/"
	if h.started[pid] == 0 {
		h.started[pid] = uint64((h.now+50*time.Hour).Milliseconds()/10) + uint64(len(h.started))
	}
	args := strings.Fields(line)
	comm := filepath.Base(args[0])
	h.write(p+"comm", comm[:min(len(comm), maxComm)]+"\n")
	h.write(p+"cmdline", strings.Join(args, "\x00")+"\x00")
	h.write(p+"status", "Name:\tx\nUid:\t0\t0\t0\t0\n")
	h.write(p+"ns/pid", "")
	h.write(fmt.Sprintf("%stask/%d/stat", p, pid), "")
	h.link(p+"ns/mnt", "mounts/"+where)
	h.link(p+"root", "roots/"+where)
	h.link(p+"exe", "files"+args[0])
	h.write(p+"stat", fmt.Sprintf("%d (%s) S %d 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 %d 0 0", pid, comm, parent, h.started[pid]))
}

func (h *fakeHost) link(path, to string) {
	h.t.Helper()
	if _, err := os.Stat(filepath.Join(h.dir, to)); err != nil {
		h.write(to, "")
	}
	path = filepath.Join(h.dir, path)
	_ = os.Remove(path)
	if err := os.Symlink(filepath.Join(h.dir, to), path); err != nil {
		h.t.Fatal(err)
	}
}

// gone has a process gone.
func (h *fakeHost) gone(pid int) {
	_ = os.RemoveAll(filepath.Join(h.dir, strconv.Itoa(pid)))
	delete(h.started, pid)
}

func (h *fakeHost) at() time.Duration { h.now += time.Microsecond; return h.now }

func (h *fakeHost) fork(parent, child int, line, where string) {
	h.process(child, parent, line, where)
	h.take(event{What: forked, Parent: parent, PID: child, At: h.at()})
}

func (h *fakeHost) exec(pid, parent int, line, where string) {
	h.process(pid, parent, line, where)
	h.take(event{What: executed, PID: pid, At: h.at()})
}

// runs has a process fork another one that executes something.
func (h *fakeHost) runs(parent, child int, line, where string) {
	h.fork(parent, child, "/x", where)
	h.exec(child, parent, line, where)
}

func (h *fakeHost) exit(pid int, status uint32) {
	h.gone(pid)
	h.take(event{What: exited, PID: pid, At: h.at(), Status: status})
}

const create = "/usr/bin/runc --root /run/runc --log /l --log-format json create --bundle /b --pid-file /b/init.pid c1"

// TestContainer is how runc makes a container (CLONE_PARENT: all three of runc's init have
// the same parent), and what runs in that.
func TestContainer(t *testing.T) {
	h := newHost(t, false)
	h.runs(shimPID, 101, create, "host")
	h.want("began 101 runc create c1 (oci_runtime)")
	h.runs(101, 102, "/memfd:runc_cloned runc init", "host")
	h.exec(102, 101, "/usr/bin/runc init", "host") // a copy of itself
	h.runs(101, 103, "/usr/bin/createRuntime-hook --secret", "host")
	h.exit(103, 0)
	h.fork(101, 104, "/usr/bin/runc init", "host")
	h.exit(102, 0)
	h.fork(101, 105, "/usr/bin/runc init", "host")
	h.exit(104, 0)
	h.process(105, 101, "/usr/bin/runc init", "c1") // it has entered the container
	h.runs(105, 106, "/usr/bin/startContainer-hook", "c1")
	h.runs(106, 107, "/usr/bin/below-a-hook", "c1")
	h.exit(107, 0)
	h.exit(106, 2<<8)
	h.exit(101, 0)
	h.reports = slices.DeleteFunc(h.reports, func(r string) bool { return strings.HasPrefix(r, "ended 10") && !strings.HasSuffix(r, "512") })
	h.want("began 102 memfd:runc_cloned (hook) below 101", "began 102 runc init (oci_runtime) below 101",
		"began 103 createRuntime-hook (hook) below 101", "began 106 startContainer-hook (hook) below 101",
		"began 107 below-a-hook (hook) below 106", "ended 106 status 512")
	h.runs(shimPID, 110, "/usr/bin/runc --root /r start c1", "host")
	h.exec(105, shimPID, "/bin/program --with secrets", "c1")
	h.want("began 110 runc start c1 (oci_runtime)", "inside 105 create c1 below 101")
	h.runs(105, 111, "/bin/more", "c1")
	h.exec(105, shimPID, "/bin/other", "c1")
	h.exit(111, 0)
	h.exit(105, 0)
	h.exit(110, 0)
	h.want("ended 110")
	if len(h.nodes) != 1 {
		t.Errorf("%d processes are followed", len(h.nodes))
	}
}

// TestStrangers: processes of others are nobody's.
func TestStrangers(t *testing.T) {
	h := newHost(t, false)
	h.runs(7, 8, "/bin/sh", "host")
	h.runs(8, 9, "/bin/sh", "host")
	h.exit(9, 0)
	h.want()
}

// TestVM: below the shim of a VM nothing is in a container, wherever it is.
func TestVM(t *testing.T) {
	h := newHost(t, true)
	h.runs(shimPID, 101, "/usr/bin/jailer --id x", "host")
	h.exec(101, shimPID, "/firecracker --api-sock /s", "jail")
	h.want("began 101 jailer", "began 101 firecracker (vmm)")
}

// TestReuse: a pid that is given to another process while nobody has seen the end of the
// one that had it.
func TestReuse(t *testing.T) {
	h := newHost(t, false)
	h.runs(shimPID, 101, "/bin/a", "host")
	h.gone(101)
	h.runs(shimPID, 101, "/bin/b", "host")
	h.exit(101, 0)
	h.want("began 101 a", "ended 101 lost 1", "began 101 b", "ended 101")
}

// TestExecOfThread: the end of a first thread is none of the process if another thread
// executes a program.
func TestExecOfThread(t *testing.T) {
	h := newHost(t, false)
	h.runs(shimPID, 101, "/usr/bin/nvidia-container-runtime create c1", "host")
	h.write("101/task/102/stat", "")
	h.take(event{What: exited, PID: 101, At: h.at()})
	h.settle(h.now)
	h.exec(101, shimPID, "/usr/bin/runc create c1", "host")
	h.settle(h.now + time.Second)
	h.exit(101, 0)
	h.want("began 101 nvidia-container-runtime create c1 (oci_runtime)", "began 101 runc create c1 (oci_runtime)", "ended 101")
}

// TestUnseen: who is gone before it can be looked at has no name, and what it began is not
// followed.
func TestUnseen(t *testing.T) {
	h := newHost(t, false)
	h.fork(shimPID, 101, "/x", "host")
	h.gone(101)
	h.take(event{What: executed, PID: 101, At: h.at()})
	h.take(event{What: forked, Parent: 101, PID: 102, At: h.at()})
	h.exit(101, 0)
	h.want("began 101", "ended 101")
	if len(h.nodes) != 1 {
		t.Errorf("%d processes are followed", len(h.nodes))
	}
}

// TestExitWithoutExec: a fork that ends without executing anything is no helper.
func TestExitWithoutExec(t *testing.T) {
	h := newHost(t, false)
	h.fork(shimPID, 101, "/x", "host")
	h.exit(101, 0)
	h.want()
}

// TestDropped: after a loss of events, what is there is found, and what is not has ended.
func TestDropped(t *testing.T) {
	h := newHost(t, false)
	h.runs(shimPID, 101, "/bin/stays", "host")
	h.runs(shimPID, 102, "/bin/goes", "host")
	h.want("began 101 stays", "began 102 goes")
	h.gone(102)
	h.process(103, shimPID, "/bin/comes", "host")
	h.write(fmt.Sprintf("%d/task/%d/children", shimPID, shimPID), "101 103 ")
	h.follower.dropped(1000)
	h.want("ended 102 lost 1", "dropped lost 1000", "runs 101 stays", "runs 103 comes", "listed")
	h.exit(103, 0)
	h.want("ended 103")
}

// TestCatchUp: a shim that is told of late has what it has executed shortly before.
func TestCatchUp(t *testing.T) {
	h := newHost(t, false)
	h.process(200, 1, "containerd-shim", "host")
	h.runs(200, 201, create, "host")
	h.runs(200, 202, "/bin/gone", "host")
	h.exit(202, 0)
	h.want()
	if !h.follow(200, h.started[200], &Root{Report: h.report}) {
		t.Fatal("it is not there")
	}
	h.want("began 201 runc create c1 (oci_runtime)", "listed")
	if h.follow(300, 0, &Root{Report: h.report}) || h.follow(200, 1, &Root{Report: h.report}) {
		t.Error("a process that is not there, or another one of its pid, is followed")
	}
	h.exit(200, 0)
	h.exit(201, 0)
	if len(h.roots) != 1 {
		t.Errorf("%d shims, want 1", len(h.roots))
	}
}

// TestForkBomb: of one shim no more processes are followed than the bound, and others'
// are.
func TestForkBomb(t *testing.T) {
	h := newHost(t, false)
	for pid := range maxNodes + 5 {
		h.take(event{What: forked, Parent: shimPID, PID: 1000 + pid, At: h.at()})
	}
	if len(h.nodes) != maxNodes+1 || len(h.reports) != 5 {
		t.Errorf("%d followed, %d reports", len(h.nodes), len(h.reports))
	}
	for pid := range maxNodes {
		h.take(event{What: exited, PID: 1000 + pid, At: h.at()})
	}
	h.reports = nil
	h.runs(shimPID, 101, "/bin/a", "host")
	h.want("began 101 a")
}

// TestNothingOfTheContainer: the program of a container, and what it executes, is never
// named, and no argument of anything but a subcommand and ids.
func TestNothingOfTheContainer(t *testing.T) {
	h := newHost(t, false)
	h.runs(shimPID, 101, create, "host")
	h.fork(101, 102, "/usr/bin/runc init", "c1")
	h.exec(102, 101, "/bin/SECRET SECRET", "c1")
	h.runs(102, 103, "/bin/SECRET SECRET", "c1")
	h.runs(shimPID, 104, "/usr/bin/runc --log SECRET exec --process /SECRET --pid-file /b/e1.pid --env SECRET c1", "host")
	h.fork(104, 105, "/usr/bin/runc init", "c1")
	h.exec(105, 104, "/bin/SECRET", "c1")
	h.runs(101, 106, "/usr/bin/hook SECRET --token=SECRET", "host")
	for _, r := range h.reports {
		if strings.Contains(r, "SECRET") {
			t.Error(r)
		}
	}
	h.want("began 101 runc create c1 (oci_runtime)", "inside 102 create c1 below 101", "began 104 runc exec c1 e1 (oci_runtime)", "inside 105 exec c1 e1 below 104", "began 106 hook (hook) below 101")
}
