package runtimes

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// lookups are the ways in which a socket is found.
var lookups = map[string]func(from, to netip.AddrPort) (socket, error){
	"asked for":  diagnose,
	"listed":     procFS("/proc").listed,
	"either way": procFS("/proc").socketOf,
}

func TestSocketOf(t *testing.T) {
	for name, find := range lookups {
		for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(name+" "+at, func(t *testing.T) {
				l, err := net.Listen("tcp", at)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				conn, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				from, to := conn.LocalAddr().(*net.TCPAddr).AddrPort(), conn.RemoteAddr().(*net.TCPAddr).AddrPort()
				wantSocket(t, find, from, to)
				for what, ends := range map[string][2]netip.AddrPort{
					"connected elsewhere": {from, from}, "that listens": {to, nowhere}, "of nobody": {nowhere, to},
				} {
					if s, err := find(ends[0], ends[1]); !errors.Is(err, errNoSocket) {
						t.Errorf("a socket %s: %+v, %v", what, s, err)
					}
				}
				conn.Close()
				// Either nothing is left, or a socket of no process.
				if s, err := find(from, to); !errors.Is(err, errNoSocket) {
					t.Errorf("closed: %+v, %v", s, err)
				}
			})
		}
	}
}

// TestSocketOfBoth: a client that speaks IPv6 and IPv4 by the same socket.
func TestSocketOfBoth(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to := l.Addr().(*net.TCPAddr).AddrPort()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	own := name.(*unix.SockaddrInet6)
	from := unmap(netip.AddrPortFrom(netip.AddrFrom16(own.Addr), uint16(own.Port)))
	for way, find := range lookups {
		t.Run(way, func(t *testing.T) { wantSocket(t, find, from, to) })
	}
}

// wantSocket checks that the socket is found, and that it is this process's.
func wantSocket(t *testing.T, find func(from, to netip.AddrPort) (socket, error), from, to netip.AddrPort) {
	t.Helper()
	proc := procFS("/proc")
	s, err := find(from, to)
	if err != nil || s.inode == 0 || int(s.uid) != os.Geteuid() {
		t.Fatalf("%+v, %v", s, err)
	}
	if !proc.has(os.Getpid(), s.inode) || proc.has(1, s.inode) || proc.has(os.Getpid(), s.inode+1<<40) {
		t.Error("it is not known who has the socket")
	}
}

func TestDiagnosisOfAnotherMake(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"cut":           make([]byte, answerSize-1),
		"another kind":  make([]byte, answerSize),
		"another error": {36, 0, 0, 0, unix.NLMSG_ERROR, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
	} {
		if s, err := parseDiagnosis(b, nowhere, nowhere); err == nil || errors.Is(err, errNoSocket) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
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
