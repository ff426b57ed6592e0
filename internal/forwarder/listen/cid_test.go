package listen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmtest"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// qemu returns QEMU's command line as the runtimes start it, as far as it matters.
func qemu(sandbox string, cid int) []string {
	return []string{
		"-name", "sandbox-" + sandbox + ",debug-threads=on", "-uuid", "0",
		"-qmp", "unix:fd=3,server=on,wait=off",
		"-device", fmt.Sprintf("vhost-vsock-pci,disable-modern=false,vhostfd=3,id=vsock-%d,guest-cid=%d,romfile=", cid, cid),
		"-append", "agent.trace=true",
	}
}

// sleepRole is a process to be found by its arguments.
func sleepRole([]string) error {
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

// orphanRole starts a process with its own arguments, prints that process's pid and ends:
// like a QEMU that becomes a daemon.
func orphanRole(args []string) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), vmtest.RoleEnv+"=sleep")
	cmd.Stdin = os.Stdin // ends with the test
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Println("orphan", cmd.Process.Pid)
	return nil
}

// parentRole starts a process as another user, UID, and stays.
func parentRole(args []string) error {
	uid, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), vmtest.RoleEnv+"=sleep")
	cmd.Stdin = os.Stdin
	cmd.SysProcAttr = asUser(uint32(uid))
	if err := cmd.Start(); err != nil {
		return err
	}
	return sleepRole(nil)
}

// shim returns the process as the inner shim.
func shim(t *testing.T, pid int) *Shim {
	t.Helper()
	p, err := host.Proc("/proc").Process(pid)
	if err != nil {
		t.Fatal(err)
	}
	return &Shim{Find: func() host.Process { return p }}
}

func find(t *testing.T, from CIDSource, timeout time.Duration) (uint32, error) {
	t.Helper()
	if from.Sandboxes == "" {
		from.Sandboxes = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return FindCID(ctx, from)
}

// TestFindCIDDescendant: QEMU is a child, of a process that starts it late.
func TestFindCIDDescendant(t *testing.T) {
	found := make(chan uint32, 1)
	go func() {
		cid, err := find(t, CIDSource{Sandbox: "whatever", Shim: shim(t, os.Getpid())}, patience)
		if err != nil {
			t.Error(err)
		}
		found <- cid
	}()
	start(t, nil, "sleep", "-device", "vhost-vsock-pci,guest-cid=2") // the host's own CID: nonsense
	time.Sleep(50 * time.Millisecond)
	start(t, nil, "sleep", qemu("whatever", 1234567890)...).ExpectPrefix("ready")
	if cid := <-found; cid != 1234567890 {
		t.Errorf("found %d", cid)
	}
}

func TestFindCIDOrphan(t *testing.T) {
	needRoot(t)
	var pids []int
	defer func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	orphan := func(args ...string) {
		line := start(t, nil, "orphan", args...).ExpectPrefix("orphan ")
		pid, err := strconv.Atoi(strings.TrimPrefix(line, "orphan "))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	self := fmt.Sprint("orphans-", os.Getpid())
	orphan(qemu(self+"-other", 501)...)
	orphan(qemu("x"+self, 502)...)
	orphan(qemu(self, 505)...)        // of an earlier sandbox of this id
	time.Sleep(50 * time.Millisecond) // some of the kernel's clock ticks
	stranger := start(t, asUser(nobody), "sleep", qemu(self, 503)...)
	stranger.ExpectPrefix("ready")
	if cid, err := find(t, CIDSource{Sandbox: self, Shim: shim(t, stranger.PID())}, time.Second); !errors.Is(err, errNoCID) {
		t.Errorf("found %d, %v among processes of others", cid, err)
	}
	orphan(qemu(self, 504)...)
	if cid, err := find(t, CIDSource{Sandbox: self, Shim: shim(t, stranger.PID())}, patience); cid != 504 {
		t.Errorf("found %d, %v", cid, err)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Local users",
		Fault: "another user runs a program with the name and arguments of a sandbox's QEMU",
		Pod:   "nothing: the CID of its own VM is claimed",
		Lost:  "nothing",
	})
}

// TestFindCIDContainer: what runs in a container can call itself anything.
func TestFindCIDContainer(t *testing.T) {
	needRoot(t)
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	start(t, attr, "sleep", qemu("victim", 600)...).ExpectPrefix("ready")
	if cid, err := find(t, CIDSource{Sandbox: "victim", Shim: shim(t, os.Getpid())}, time.Second); !errors.Is(err, errNoCID) {
		t.Errorf("found %d, %v in a container", cid, err)
	}
}

func TestFindCIDPersisted(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want uint32
	}{
		"go runtime":  {`{"PersistVersion":2,"State":"running","AgentState":{"URL":"vsock://3141592653:1024"},"HypervisorState":{"URL":"vsock://9:1"}}`, 3141592653},
		"hybrid":      {`{"AgentState":{"URL":"hvsock:///run/vc/vm/x/clh.sock:1024"}}`, 0},
		"being made":  {`{"AgentState":{"URL":"vsock://31415`, 0},
		"no number":   {`{"AgentState":{"URL":"vsock://x:1024"}}`, 0},
		"the host":    {`{"AgentState":{"URL":"vsock://2:1024"}}`, 0},
		"any CID":     {`{"AgentState":{"URL":"vsock://4294967295:1024"}}`, 0},
		"too large":   {`{"AgentState":{"URL":"vsock://4294967299:1024"}}`, 0},
		"other shape": {`{"AgentState":[7]}`, 0},
		"endless":     {`{"Pad":"` + strings.Repeat("x", maxPersist) + `","AgentState":{"URL":"vsock://5:1024"}}`, 0},
		"empty":       {``, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			mkdir(t, filepath.Join(dir, "pod"))
			if err := os.WriteFile(filepath.Join(dir, "pod", "persist.json"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			cid, err := find(t, CIDSource{Sandbox: "pod", Sandboxes: dir}, 30*time.Millisecond)
			if cid != c.want || (err == nil) != (c.want != 0) {
				t.Errorf("found %d, %v, not %d", cid, err, c.want)
			}
		})
	}
}

// TestFindCIDOfEarlierSandbox: files of an earlier sandbox with the same id are ignored.
func TestFindCIDOfEarlierSandbox(t *testing.T) {
	dir := t.TempDir()
	mkdir(t, filepath.Join(dir, "pod"))
	path := filepath.Join(dir, "pod", "persist.json")
	if err := os.WriteFile(path, []byte(`{"AgentState":{"URL":"vsock://77:1024"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, before, before); err != nil {
		t.Fatal(err)
	}
	from := CIDSource{Sandbox: "pod", Sandboxes: dir, Shim: shim(t, os.Getpid())}
	if cid, err := find(t, from, 100*time.Millisecond); err == nil {
		t.Errorf("found %d", cid)
	}
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil {
		t.Fatal(err)
	}
	if cid, err := find(t, from, patience); cid != 77 {
		t.Errorf("found %d, %v", cid, err)
	}
}

func TestGuestCID(t *testing.T) {
	for line, want := range map[string]uint32{
		strings.Join(qemu("x", 77), "\x00"):                  77,
		"qemu\x00-device\x00vhost-vsock-ccw,guest-cid=9,x=y": 9,
		"qemu\x00-device\x00vhost-vsock-pci,id=guest-cid=9":  0,
		"qemu\x00-append\x00guest-cid=9":                     0,
		"qemu\x00-device\x00vhost-vsock-pci,guest-cid=-9":    0,
		"qemu\x00-device\x00vhost-vsock-pci,guest-cid=1":     0,
		"qemu\x00-device\x00vhost-vsock-pci,guest-cid=0x10":  0,
		"qemu\x00-device\x00virtio-net-pci,guest-cid=9":      0,
		"": 0,
		"qemu\x00-device\x00vhost-vsock-pci,guest-cid=":        0,
		"qemu\x00-device\x00vhost-vsock-device,guest-cid=4444": 4444,
	} {
		path := filepath.Join(t.TempDir(), "1")
		mkdir(t, path)
		if err := os.WriteFile(filepath.Join(path, "cmdline"), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		cid, ok := guestCID(host.Proc(filepath.Dir(path)).Args(1))
		if cid != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v, not %d", line, cid, ok, want)
		}
	}
}

func TestFindCIDRefusesNonsense(t *testing.T) {
	if _, err := find(t, CIDSource{Sandbox: "../.."}, time.Second); err == nil || errors.Is(err, errNoCID) {
		t.Errorf("sandbox ../..: %v", err)
	}
}

// TestShimOwns: only users whose process the shim has started.
func TestShimOwns(t *testing.T) {
	needRoot(t)
	const vmmUser, other = 12345, 12346
	s := shim(t, os.Getpid())
	if s.Owns(vmmUser) {
		t.Error("a user owns what is not there")
	}
	start(t, asUser(vmmUser), "sleep").ExpectPrefix("ready")
	if !s.Owns(vmmUser) || s.Owns(other) || s.Owns(0) {
		t.Errorf("the VMM's user %t, another one %t, root %t", s.Owns(vmmUser), s.Owns(other), s.Owns(0))
	}
	var none *Shim
	if none.Owns(vmmUser) {
		t.Error("a user owns what nobody has started")
	}
}
