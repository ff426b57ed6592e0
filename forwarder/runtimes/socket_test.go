package runtimes

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
)

func TestSocketOf(t *testing.T) {
	proc := procFS("/proc")
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"} {
		network := "tcp"
		l, err := net.Listen(network, at)
		if err != nil {
			t.Logf("%s: %v", at, err)
			continue
		}
		defer l.Close()
		conn, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		from, to := conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		s, err := proc.socketOf(from, to)
		if err != nil || s.inode == 0 || int(s.uid) != os.Geteuid() {
			t.Errorf("%s: %+v, %v", at, s, err)
		}
		if !proc.has(os.Getpid(), s.inode) || proc.has(1, s.inode) || proc.has(os.Getpid(), s.inode+1<<40) {
			t.Errorf("%s: it is not known who has the socket", at)
		}
		mapped := netip.AddrPortFrom(netip.AddrFrom16(from.Addr().As16()), from.Port())
		if again, err := proc.socketOf(mapped, to); err != nil || again != s {
			t.Errorf("%s as %s: %+v, %v", at, mapped, again, err)
		}
		if _, err := proc.socketOf(from, from); !errors.Is(err, errNoSocket) {
			t.Errorf("%s: a socket that is connected elsewhere: %v", at, err)
		}
		conn.Close()
		// Either nothing is left, or a socket of no process.
		if s, err := proc.socketOf(from, to); !errors.Is(err, errNoSocket) {
			t.Errorf("%s, closed: %+v, %v", at, s, err)
		}
	}
	if _, err := procFS(t.TempDir()).socketOf(nowhere, nowhere); !errors.Is(err, errNoSocket) {
		t.Errorf("without a list: %v", err)
	}
}

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
