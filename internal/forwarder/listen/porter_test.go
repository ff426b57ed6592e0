package listen

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// relayRole is a relay process: DIR NAME SANDBOX CID, where NAME is of the stand-in
// for VSOCK. It says what arrives, and at
// a connection's end how many bytes came and their checksum.
func relayRole(args []string) error {
	cid, err := strconv.ParseUint(args[3], 10, 32)
	if err != nil {
		return err
	}
	opts := VSOCKOptions{
		Dir:  args[0],
		Hold: patience,
		Warn: func(err error) { fmt.Println("warning", err) },
	}
	if args[1] != realVSOCK {
		opts.transport = abstractTransport(args[1])
	}
	v := NewVSOCK(opts, func(conn Conn, from Origin) {
		fmt.Printf("arrived %s %d\n", from.Sandbox, from.CID)
		go func() {
			defer conn.Close()
			sum := crc32.NewIEEE()
			n, err := io.Copy(sum, conn)
			fmt.Printf("ended %d %08x %v\n", n, sum.Sum32(), err)
		}()
	})
	v.Claim(args[2], uint32(cid))
	go func() {
		for {
			v.mu.Lock()
			in := v.porter != nil && v.listener != nil
			v.mu.Unlock()
			if in {
				fmt.Println("ready")
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return v.Serve(context.Background())
}

// relays starts relay processes with the CIDs 100, 101, … and waits until they
// take part.
func relays(t *testing.T, dir, name string, n int) []*child {
	t.Helper()
	var all []*child
	for i := range n {
		c := start(t, nil, "relay", dir, name, fmt.Sprint("sandbox-", i), fmt.Sprint(100+i))
		c.expect("ready")
		all = append(all, c)
	}
	return all
}

// porterPID is the process that listens for relays.
func porterPID(dir string) int {
	conn, err := net.Dial("unixpacket", filepath.Join(dir, "porter.sock"))
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// TestPorterKilled kills one porter after another. Connections that were handed
// over go on, VMs that connect while there is no porter get through, and each
// reaches its own relay.
func TestPorterKilled(t *testing.T) {
	opts, name := options(t)
	all := relays(t, opts.Dir, name, 4)
	text := make([]byte, 100<<10)
	for i := range text {
		text[i] = byte(i * 7)
	}
	half := len(text) / 2
	write := func(vm *net.UnixConn, b []byte) {
		t.Helper()
		_ = vm.SetWriteDeadline(time.Now().Add(patience))
		if _, err := vm.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	ended := fmt.Sprintf("ended %d %08x <nil>", len(text), crc32.ChecksumIEEE(text))

	vms := make(map[*child]*net.UnixConn)
	for i, c := range all {
		vm := mustDialVM(t, name, uint32(100+i))
		write(vm, text[:half])
		c.expect(fmt.Sprintf("arrived sandbox-%d %d", i, 100+i))
		vms[c] = vm
	}
	alive := make(map[int]*child)
	for i, c := range all {
		alive[i] = c
	}
	for len(alive) > 1 {
		var victim *child
		eventually(t, "there is a porter", func() bool {
			pid := porterPID(opts.Dir)
			for i, c := range alive {
				if c.pid() == pid {
					victim = c
					delete(alive, i)
					return true
				}
			}
			return false
		})
		victim.kill()
		killed := time.Now()
		// At once, before anybody can have noticed: the port must be open.
		dialled := make(map[int]*net.UnixConn)
		for i := range alive {
			vm, err := dialVM(name, uint32(100+i))
			if err != nil {
				t.Fatalf("a VM cannot connect after the porter's end: %v", err)
			}
			write(vm, text)
			dialled[i] = vm
		}
		for i, c := range alive {
			c.expect(fmt.Sprintf("arrived sandbox-%d %d", i, 100+i))
			dialled[i].Close()
			c.expect(ended)
		}
		t.Logf("%d relays served again %v after the porter was killed", len(alive), time.Since(killed).Round(time.Millisecond))
	}
	for _, c := range alive {
		write(vms[c], text[half:])
		vms[c].Close()
		c.expect(ended)
	}
}

// TestPorterRestarted: a relay that comes back gets its VM's next connection.
func TestPorterRestarted(t *testing.T) {
	opts, name := options(t)
	all := relays(t, opts.Dir, name, 3)
	for i, c := range all {
		if c.pid() == porterPID(opts.Dir) {
			continue
		}
		c.kill()
		again := start(t, nil, "relay", opts.Dir, name, fmt.Sprint("again-", i), fmt.Sprint(100+i))
		again.expect("ready")
		mustDialVM(t, name, uint32(100+i))
		again.expect(fmt.Sprintf("arrived again-%d %d", i, 100+i))
	}
}

// TestPorterStopped: a relay that hangs holds up nobody else's connections.
func TestPorterStopped(t *testing.T) {
	opts, name := options(t)
	all := relays(t, opts.Dir, name, 3)
	var stopped, other int
	for i, c := range all {
		if c.pid() != porterPID(opts.Dir) {
			stopped = i
		}
	}
	other = (stopped + 1) % len(all)
	if err := unix.Kill(all[stopped].pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		mustDialVM(t, name, uint32(100+stopped))
	}
	mustDialVM(t, name, uint32(100+other))
	all[other].expect(fmt.Sprintf("arrived sandbox-%d", other))
	if err := unix.Kill(all[stopped].pid(), unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	all[stopped].expect(fmt.Sprintf("arrived sandbox-%d", stopped))
}

// connectRole connects to a Unix socket and says how that ends: NETWORK PATH.
func connectRole(args []string) error {
	conn, err := net.Dial(args[0], args[1])
	if err != nil {
		fmt.Println("refused", err)
		return nil
	}
	defer conn.Close()
	fmt.Println("connected")
	_, _ = conn.Write([]byte{kindClaim, 0, 0, 0, 100})
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(make([]byte, 16))
	fmt.Println("read", n, err)
	return nil
}

// impostRole listens where the porter should: PATH. It says what connects, and
// what that says.
func impostRole(args []string) error {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: args[0], Net: "unixpacket"})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 16))
	fmt.Println("read", n, err)
	return nil
}

const nobody = 65534

func TestPorterRefusesOtherUsers(t *testing.T) {
	needRoot(t)
	opts, name := options(t)
	v, arrived, _ := share(t, opts)
	v.Claim("rightful", 100)
	vm := mustDialVM(t, name, 100)
	await(t, arrived).carries(t, vm, "before")

	c := start(t, asUser(nobody), "connect", "unixpacket", v.socketPath())
	c.expect("refused") // by the directory

	openUp(t, opts.Dir)
	if err := os.Chmod(v.socketPath(), 0o666); err != nil {
		t.Fatal(err)
	}
	c = start(t, asUser(nobody), "connect", "unixpacket", v.socketPath())
	c.expect("connected")
	c.expect("read 0 ")

	vm = mustDialVM(t, name, 100)
	if a := await(t, arrived); a.from.Sandbox != "rightful" {
		t.Errorf("comes from %+v", a.from)
	} else {
		a.carries(t, vm, "after")
	}
}

func TestPorterOfOtherUser(t *testing.T) {
	needRoot(t)
	opts, _ := options(t)
	if err := os.Mkdir(opts.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	openUp(t, opts.Dir)
	path := filepath.Join(opts.Dir, "porter.sock")
	c := start(t, asUser(nobody), "impost", path)
	c.expect("ready")
	v := NewVSOCK(opts, func(c Conn, _ Origin) { c.Close() })
	v.Claim("secret", 100)
	if conn, err := v.dial(context.Background()); err == nil {
		conn.Close()
		t.Error("a porter of another user is trusted")
	}
	c.expect("read 0 ")
}

// openUp lets everybody into a directory of the test.
func openUp(t *testing.T, dir string) {
	t.Helper()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(dir); d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
