package evidence

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/middleware"
)

func TestMain(m *testing.M) { shimtest.Main(m) }

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPressure: what was added between two looks is said, of what the kernel has.
func TestPressure(t *testing.T) {
	proc := t.TempDir()
	look := func(cpu, io int) Pressure {
		write(t, proc+"/pressure/cpu", fmt.Sprintf("some avg10=1.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", cpu))
		write(t, proc+"/pressure/io", fmt.Sprintf("some avg10=1.00 avg60=0.00 avg300=0.00 total=%d\n", io))
		write(t, proc+"/pressure/memory", "nonsense total=1\nsome total=-\n")
		return ReadPressure(proc)
	}
	before, now := look(1000, 5), look(3000, 4)
	shimtest.Want(t, now.Since(before), "shimtrace.pressure.cpu.some_ns=2000000")
	if got := ReadPressure(t.TempDir()).Since(before); len(got) != 0 {
		t.Errorf("a host without it: %v", got)
	}
}

// TestRealPressure reads this host's.
func TestRealPressure(t *testing.T) {
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil {
		t.Skip(err)
	}
	if p := ReadPressure("/proc"); len(p) == 0 || len(p.Since(p)) != len(p) {
		t.Errorf("%v", p)
	}
}

// TestCgroup: both versions, pods of both managers, and what is neither.
func TestCgroup(t *testing.T) {
	for _, tt := range []struct {
		name, cgroup, stat, text string
		want                     []string
	}{
		{"version 2, systemd", "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-c1.scope\n", "kubepods.slice/kubepods-pod1.slice/cpu.stat", "usage_usec 9\nthrottled_usec 5\n",
			[]string{"shimtrace.cgroup.manager=systemd", "shimtrace.cgroup.throttled_ns=5000"}},
		{"version 1", "12:memory:/x\n4:cpu,cpuacct:/kubepods/pod1/c1\n0::/\n", "cpu,cpuacct/kubepods/pod1/cpu.stat", "nr_periods 1\nthrottled_time 77\n",
			[]string{"shimtrace.cgroup.manager=cgroupfs", "shimtrace.cgroup.throttled_ns=77"}},
		{"no pod", "4:cpu:/default/c1\n", "cpu/default/c1/cpu.stat", "throttled_time 3\n",
			[]string{"shimtrace.cgroup.manager=cgroupfs", "shimtrace.cgroup.throttled_ns=3"}},
		{"no file", "0::/default/c1\n", "elsewhere", "", []string{"shimtrace.cgroup.manager=cgroupfs"}},
		{"outside", "0::/../../etc\n", "elsewhere", "", nil},
		{"nothing", "", "elsewhere", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proc, cgroups := t.TempDir(), t.TempDir()
			write(t, proc+"/7/cgroup", tt.cgroup)
			write(t, filepath.Join(cgroups, tt.stat), tt.text)
			shimtest.Want(t, Cgroup(proc, cgroups, 7), tt.want...)
			shimtest.Want(t, Cgroup(proc, cgroups, 8))
		})
	}
}

// during makes a call in which something happens.
func during(t testing.TB, u *Usage, rec *shimtest.Spans, what func()) (attrs []attribute.KeyValue) {
	t.Helper()
	return duringMethod(t, u, rec, "Create", what)
}

func duringMethod(t testing.TB, u *Usage, rec *shimtest.Spans, method string, what func()) (attrs []attribute.KeyValue) {
	t.Helper()
	cfg := config.Default().Trace
	call := middleware.UnaryClientInterceptor(middleware.WithTracerProvider(export.NewTracerProvider(cfg, rec)), middleware.WithObserver(u))
	req := &ttrpc.Request{Service: "containerd.task.v3.Task", Method: method}
	if err := call(t.Context(), req, &ttrpc.Response{}, &ttrpc.UnaryClientInfo{}, func(context.Context, *ttrpc.Request, *ttrpc.Response) error {
		what()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	all := rec.Ended()
	return all[len(all)-1].Attributes()
}

// TestUsage: a long call says what the inner shim has used meanwhile, a short one does not,
// and nothing is said of a process that is gone.
func TestUsage(t *testing.T) {
	self, err := host.Proc("/proc").Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	number := func(attrs []attribute.KeyValue, key string) (int64, bool) {
		for _, a := range attrs {
			if string(a.Key) == key {
				return a.Value.AsInt64(), true
			}
		}
		return 0, false
	}
	work := func() {
		for before := host.CPUTime(self.PID); host.CPUTime(self.PID)-before < 20*time.Millisecond; {
		}
	}
	rec := shimtest.NewSpans(t)
	u := NewUsage("/proc", time.Millisecond)
	u.Inner(self)
	u.VMM(host.Process{PID: self.PID, Start: self.Start + 1}) // another one had the pid
	attrs := during(t, u, rec, work)
	if cpu, ok := number(attrs, names.InnerCPUTime); !ok || cpu < int64(20*time.Millisecond) || cpu > int64(time.Minute) {
		t.Errorf("it has used %d ns: %v", cpu, attrs)
	}
	if _, ok := number(attrs, names.InnerFaults); !ok {
		t.Errorf("no faults are said: %v", attrs)
	}
	if _, ok := number(attrs, names.VMMCPUTime); ok {
		t.Errorf("a process that is gone is said to have used something: %v", attrs)
	}
	u = NewUsage("/proc", time.Hour)
	u.Inner(self)
	if _, ok := number(during(t, u, rec, work), names.InnerCPUTime); ok {
		t.Error("a short call says it")
	}
	if _, ok := number(duringMethod(t, NewUsage("/proc", 0), rec, "State", work), names.InnerCPUTime); ok {
		t.Error("a call that is polled says it")
	}
	if len(u.open) != 0 {
		t.Errorf("%d calls are remembered", len(u.open))
	}
}

// TestVMMComes: a VMM that a call makes has used all that it has in that call.
func TestVMMComes(t *testing.T) {
	self, err := host.Proc("/proc").Process(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	u := NewUsage("/proc", 0)
	attrs := during(t, u, shimtest.NewSpans(t), func() { u.VMM(self) })
	for _, a := range attrs {
		if string(a.Key) == names.VMMCPUTime && a.Value.AsInt64() > 0 {
			return
		}
	}
	t.Error(attrs)
}

// BenchmarkEvidence is what it costs at a start's ends, and for each call.
func BenchmarkEvidence(b *testing.B) {
	self, err := host.Proc("/proc").Process(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("pressure", func(b *testing.B) {
		for b.Loop() {
			ReadPressure("/proc")
		}
	})
	b.Run("cgroup", func(b *testing.B) {
		for b.Loop() {
			Cgroup("/proc", "/sys/fs/cgroup", self.PID)
		}
	})
	b.Run("call", func(b *testing.B) {
		u := NewUsage("/proc", 0)
		u.Inner(self)
		for b.Loop() {
			u.look()
		}
	})
}
