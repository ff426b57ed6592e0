package host

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/host/hosttest"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		// Of a machine with the least significant byte first, as Linux's own are.
		"0100007F:37BC":                         "127.0.0.1:14268",
		"0000000000000000FFFF00000100007F:37BC": "127.0.0.1:14268",
		"00000000000000000000000001000000:0050": "[::1]:80",
		"B80D0120000000000000000001000000:FFFF": "[2001:db8::1]:65535",
		"0100007F:37BCF":                        "",
		"0100007F":                              "",
		"01007F:37BC":                           "",
		"0100007G:37BC":                         "",
		"":                                      "",
		":":                                     "",
	} {
		got, ok := parseAddress([]byte(text))
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %s, %t, want %s", text, got, ok, want)
		}
	}
}

func TestHolder(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		if address == "[::1]:0" {
			at = l.Addr().(*net.TCPAddr).AddrPort()
		}
		h, found, err := proc.Holder(at)
		if err != nil || !found || h.PID != os.Getpid() || h.Foreign() || !strings.Contains(h.String(), "(host.test)") {
			t.Errorf("%s: %v, %t, %v", address, h, found, err)
		}
		l.Close()
		if h, found, err := proc.Holder(at); found || err != nil {
			t.Errorf("%s is held by %v, %v", address, h, err)
		}
	}
}

// TestHolderForeign: another user's socket is recognised.
func TestHolderForeign(t *testing.T) {
	l := hosttest.ListenAs(t, hosttest.Nobody)
	if h, found, err := proc.Holder(l.Addr().(*net.TCPAddr).AddrPort()); !found || err != nil || h.UID != 65534 || !h.Foreign() {
		t.Errorf("%v, %t, %v", h, found, err)
	}
}

// TestTCPEndless: a list without an end is an error, not a wait.
func TestTCPEndless(t *testing.T) {
	dir := t.TempDir()
	if err := Proc(dir).TCP(1, func(TCPSocket) {}); err == nil {
		t.Error("a host without lists has no sockets")
	}
	if err := os.Mkdir(filepath.Join(dir, "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	line := "  0: 0100007F:0001 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0\n"
	endless := strings.Repeat(line, maxList/len(line)+2)
	if err := os.WriteFile(filepath.Join(dir, "net", "tcp"), []byte(endless), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Proc(dir).TCP(1, func(TCPSocket) {}); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}

func TestFirstUnprivilegedPort(t *testing.T) {
	dir := t.TempDir()
	if n := Proc(dir).FirstUnprivilegedPort(); n != 1024 {
		t.Errorf("unknown: %d", n)
	}
	path := filepath.Join(dir, "sys/net/ipv4")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "ip_unprivileged_port_start"), []byte("80\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := Proc(dir).FirstUnprivilegedPort(); n != 80 {
		t.Errorf("set: %d", n)
	}
}
