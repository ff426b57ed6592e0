package procevents

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// datagram returns an event as the kernel sends it.
func datagram(what what, data ...uint32) []byte {
	m := make([]byte, atData, 80)
	order := binary.NativeEndian
	for _, n := range data {
		m = order.AppendUint32(m, n)
	}
	m = append(m, make([]byte, max(0, 76-len(m)))...)
	order.PutUint32(m, uint32(len(m)))
	order.PutUint32(m[atIndex:], connectorProc)
	order.PutUint32(m[atIndex+4:], connectorProc)
	order.PutUint16(m[atLength:], uint16(len(m)-atEvent))
	order.PutUint32(m[atWhat:], uint32(what))
	order.PutUint64(m[atTime:], 123456789)
	return m
}

func TestParse(t *testing.T) {
	const at = 123456789
	for _, tt := range []struct {
		m    []byte
		want []event
	}{
		{datagram(forked, 1, 2, 3, 3), []event{{What: forked, Parent: 2, PID: 3, At: at}}},
		{datagram(forked, 1, 2, 4, 3), nil}, // a thread
		{datagram(executed, 5, 5), []event{{What: executed, PID: 5, At: at}}},
		{datagram(exited, 5, 5, 256, 17), []event{{What: exited, PID: 5, At: at, Status: 256}}},
		{datagram(exited, 6, 5, 256, 17), nil},
		{datagram(4, 5, 5), nil}, // of another kind
		{slices.Concat(datagram(executed, 5, 5), datagram(executed, 6, 6)), []event{{What: executed, PID: 5, At: at}, {What: executed, PID: 6, At: at}}},
	} {
		var got []event
		if err := parse(tt.m, func(e event) { got = append(got, e) }, func(uint32) {}); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%x: %v, %v, want %v", tt.m, got, err, tt.want)
		}
	}
	if err := parse(datagram(executed, 5, 5)[:60], func(event) {}, func(uint32) {}); err == nil {
		t.Error("a datagram that was cut is one")
	}
	acked := uint32(0)
	if err := parse(datagram(none, 1), func(event) {}, func(errno uint32) { acked = errno }); err != nil || acked != 1 {
		t.Error(acked, err)
	}
}

// FuzzParse: whatever a datagram has, the parser comes to its end, and reports processes
// only.
func FuzzParse(f *testing.F) {
	f.Add(datagram(forked, 1, 2, 3, 3))
	f.Add(datagram(exited, 5, 5, 256, 17))
	f.Add(slices.Concat(datagram(executed, 5, 5), datagram(none, 0)))
	f.Fuzz(func(t *testing.T, m []byte) {
		was := bytes.Clone(m)
		_ = parse(m, func(e event) {
			if e.PID <= 0 || e.What != forked && e.Parent != 0 {
				t.Errorf("%+v", e)
			}
		}, func(uint32) {})
		if !bytes.Equal(m, was) {
			t.Error("it was changed")
		}
	})
}

func TestProgramName(t *testing.T) {
	for _, tt := range []struct{ comm, exe, args, want string }{
		{"runc", "/usr/bin/runc", "", "runc"},
		{"exe", "/memfd:runc_cloned:/proc/self/exe (deleted)", "runc init", "runc"},
		{"6", "/memfd:x (deleted)", "/usr/bin/runc init", "runc"},
		{"runc:[1:CHILD]", "/usr/bin/runc", "runc init", "runc"},
		{"qemu-system-x86", "/usr/bin/qemu-system-x86_64", "", "qemu-system-x86_64"},
		{"hook.sh", "/bin/sh", "/bin/sh /h/hook.sh SECRET", "hook.sh"},
		{"a-hook-with-a-l", "/bin/sh", "/bin/sh /h/a-hook-with-a-long-name SECRET", "a-hook-with-a-long-name"},
		{"a\x1b[31m\xff\n", "/x", "", "a[31m"},
	} {
		var args [][]byte
		for a := range bytes.FieldsSeq([]byte(tt.args)) {
			args = append(args, a)
		}
		if got := programName(tt.comm, tt.exe, args); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.comm, got, tt.want)
		}
	}
}

func TestParseOCI(t *testing.T) {
	for line, want := range map[string]ociCommand{
		"runc --root create --log start kill --all c1 9":            {"kill", "c1", ""},
		"runc --systemd-cgroup --log-format=json delete --force c1": {"delete", "c1", ""},
		"runc init":                        {"init", "", ""},
		"runc exec --pid-file /b/e.pid c1": {"exec", "c1", "e"},
		"runc start ../../etc/passwd":      {"start", "", ""},
		"runc something create c1":         {},
		"runc":                             {},
		"runc create":                      {"create", "", ""},
	} {
		if got := parseOCI(bytes.Fields([]byte(line))); got != want {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
}

// FuzzParseOCI: of a command line nothing is kept but a known word and identifiers.
func FuzzParseOCI(f *testing.F) {
	f.Add([]byte("runc\x00--root\x00/r\x00kill\x00c1\x009"))
	f.Add([]byte("runc\x00exec\x00--pid-file\x00/b/e.pid\x00c1"))
	f.Fuzz(func(t *testing.T, line []byte) {
		c := parseOCI(bytes.Split(line, []byte{0}))
		if c.subcommand != "" && !slices.Contains(ociCommands, c.subcommand) || c.container != identifier(c.container) || c.exec != identifier(c.exec) {
			t.Errorf("%+v", c)
		}
	})
}

// TestForged: what another process sends is no event.
func TestForged(t *testing.T) {
	s := openHere(t)
	name, err := unix.Getsockname(s.events)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const forged = 0x3ffffff0
	if err := unix.Sendto(fd, datagram(executed, forged, forged), 0, name); err != nil {
		t.Skip("nobody may even send one: ", err)
	}
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		if _, err := s.Read(10*time.Millisecond, func(e event) {
			if e.PID == forged {
				t.Fatal("it is taken for the kernel's")
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// onThread calls f on a thread of its own that something has been done to.
func onThread(t *testing.T, what func() error, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := what()
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Skip(err)
	}
}

// TestOpenWithoutPermission: without CAP_NET_ADMIN there are no events, and the error says
// what is missing.
func TestOpenWithoutPermission(t *testing.T) {
	drop := func() error {
		var none [2]unix.CapUserData
		return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
	}
	onThread(t, drop, func() {
		s, err := Open()
		if err != nil {
			if !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
				t.Error(err)
			}
			return
		}
		defer s.Close() // newer kernels let everybody
		seen := 0
		for end := time.Now().Add(20 * time.Second); seen == 0 && time.Now().Before(end); {
			if err := exec.Command("/bin/true").Run(); err != nil {
				t.Error(err)
			}
			if _, err := s.Read(10*time.Millisecond, func(event) { seen++ }); err != nil {
				t.Error(err)
			}
		}
		if seen == 0 {
			t.Error("nothing is missing, and no event comes")
		}
	})
}

// TestOpenElsewhere: in another network namespace the kernel has no connector, and the
// events are those of the host's own.
func TestOpenElsewhere(t *testing.T) {
	openHere(t).Close()
	onThread(t, func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() {
		if s, err := open(); !errors.Is(err, unix.ECONNREFUSED) {
			t.Error("a connector is here: ", s, err)
		}
		s, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	})
}
