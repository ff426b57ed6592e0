package route

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// noDiag is what a kernel answers without inet_diag or tcp_diag: ENOENT to everything.
func noDiag(netip.AddrPort, netip.AddrPort) (socket, error) {
	answer := make([]byte, headerSize+4)
	binary.NativeEndian.PutUint16(answer[4:], unix.NLMSG_ERROR)
	errno := -int32(unix.ENOENT)
	binary.NativeEndian.PutUint32(answer[headerSize:], uint32(errno))
	return parseDiagnosis(answer, netip.AddrPort{}, netip.AddrPort{})
}

// lookups are the ways in which a socket is found, by what the kernel answers.
func lookups(t *testing.T) map[string]func(from, to netip.AddrPort) (socket, error) {
	diag := new(diagnoser)
	t.Cleanup(diag.close)
	ways := make(map[string]func(from, to netip.AddrPort) (socket, error))
	for name, diagnose := range map[string]func(from, to netip.AddrPort) (socket, error){
		"asked for": diag.ask,
		"no module": noDiag,
		"forbidden": func(_, _ netip.AddrPort) (socket, error) { return socket{}, unix.EACCES },
	} {
		s := sockets{proc: "/proc", diagnose: diagnose, warn: func(err error) { t.Log(err) }}
		ways[name] = func(from, to netip.AddrPort) (socket, error) {
			all := s.find([]netip.AddrPort{nowhere, from}, to)
			if !errors.Is(all[0].err, errNoSocket) {
				t.Errorf("nobody's: %+v", all[0])
			}
			return all[1].socket, all[1].err
		}
	}
	return ways
}

func TestSocketOf(t *testing.T) {
	for name, find := range lookups(t) {
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
					"connected elsewhere": {from, from}, "that listens": {to, to}, "of nobody": {nowhere, to},
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
	for way, find := range lookups(t) {
		t.Run(way, func(t *testing.T) { wantSocket(t, find, from, to) })
	}
}

// wantSocket checks that the socket is found, and that it is this process's.
func wantSocket(t *testing.T, find func(from, to netip.AddrPort) (socket, error), from, to netip.AddrPort) {
	t.Helper()
	proc := host.Proc("/proc")
	s, err := find(from, to)
	if err != nil || s.inode == 0 || int(s.uid) != os.Geteuid() {
		t.Fatalf("%+v, %v", s, err)
	}
	if !proc.HasSocket(os.Getpid(), s.inode) || proc.HasSocket(1, s.inode) || proc.HasSocket(os.Getpid(), s.inode+1<<40) {
		t.Error("it is not known who has the socket")
	}
}

// TestNothingToldNothingKnown: if neither way works, a peer is taken neither for a
// runtime nor for gone.
func TestNothingToldNothingKnown(t *testing.T) {
	s := sockets{proc: host.Proc(t.TempDir()), diagnose: noDiag, warn: func(error) {}}
	if f := s.find([]netip.AddrPort{nowhere}, nowhere)[0]; f.err == nil || errors.Is(f.err, errNoSocket) {
		t.Errorf("%+v", f)
	}
	endless := t.TempDir()
	if err := os.Mkdir(filepath.Join(endless, "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, err := os.Create(filepath.Join(endless, "net", "tcp"))
	if err == nil {
		err = list.Truncate(64 << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	list.Close()
	s.proc = host.Proc(endless)
	if f := s.find([]netip.AddrPort{nowhere}, nowhere)[0]; f.err == nil || errors.Is(f.err, errNoSocket) {
		t.Errorf("%+v", f)
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
