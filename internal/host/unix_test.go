package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUnixSockets: at short and at long paths, in the place of what is there, for our
// own user only.
func TestUnixSockets(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		for _, below := range []string{"", strings.Repeat("a/", 60)} {
			t.Run(fmt.Sprintf("%s %d", network, len(below)), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), below)
				path := filepath.Join(dir, "socket")
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o666); err != nil {
					t.Fatal(err)
				}
				l, err := ListenUnix(network, path)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				info, err := os.Lstat(path)
				if err != nil || info.Mode() != os.ModeSocket|0o600 {
					t.Errorf("%v, %v", info, err)
				}
				conn, err := DialUnix(context.Background(), network, path)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				peer, err := Peer(conn)
				if err != nil || int(peer.Pid) != os.Getpid() || int(peer.Uid) != os.Getuid() {
					t.Errorf("peer %+v, %v", peer, err)
				}
				uid := uint32(os.Getuid())
				if err := CheckPeer(conn, 12345, uid); err != nil {
					t.Error(err)
				}
				if err := CheckPeer(conn, uid+1); err == nil {
					t.Error("our user passes for another")
				}
				l.Close()
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("the file does not stay: %v", err)
				}
				_ = l.Remove()
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the file stays: %v", err)
				}
			})
		}
	}
}

// TestConnectUnix: who listens is there, also without coming to accept.
func TestConnectUnix(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("a/", 60))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "socket"), filepath.Join(long, "socket"), fmt.Sprintf("\x00shimtrace-test-%d", os.Getpid())} {
		if err := ConnectUnix(path); err == nil {
			t.Errorf("%q: somebody is there", path)
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		name, release, err := shortName(path)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: name}), unix.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			err := ConnectUnix(path)
			if i == 0 && err != nil || err != nil && !errors.Is(err, unix.EAGAIN) {
				t.Errorf("%q, connection %d: %v", path, i, err)
			}
		}
	}
}

func TestDescriptors(t *testing.T) {
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		ours, file, err := UnixPair(kind)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := UnixConn(file)
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		defer theirs.Close()
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		for _, with := range [][]syscall.Conn{nil, {dir}, {dir, ours, dir}} {
			if err := Send(ours, []byte("text"), with...); err != nil {
				t.Fatal(err)
			}
			data := make([]byte, 10)
			n, files, err := Receive(theirs, data, 3)
			if err != nil || string(data[:n]) != "text" || len(files) != len(with) {
				t.Fatalf("%q with %d descriptors, %v", data[:n], len(files), err)
			}
			for i, f := range files {
				if i != 1 && !IsFile(f, dir.Name()) {
					t.Errorf("descriptor %d is of something else", i)
				}
				if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("flags %x, %v", flags, err)
				}
				f.Close()
			}
		}
		before := openFiles(t)
		for _, tt := range []struct{ with, most int }{{1, 0}, {2, 1}, {MaxDescriptors, 1}} {
			fds := make([]int, tt.with)
			for i := range fds {
				fds[i] = int(dir.Fd())
			}
			if err := SendDescriptors(ours, []byte("text"), fds); err != nil {
				t.Fatal(err)
			}
			if _, files, err := Receive(theirs, make([]byte, 10), tt.most); !errors.Is(err, ErrDescriptors) || files != nil {
				t.Errorf("%d where %d may come: %d, %v", tt.with, tt.most, len(files), err)
			}
		}
		if kind == unix.SOCK_SEQPACKET {
			if err := Send(ours, make([]byte, 11), dir); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Receive(theirs, make([]byte, 10), 1); err == nil {
				t.Error("half a packet")
			}
		}
		// What other tests have left open may be closed meanwhile, by the garbage collector.
		if after := openFiles(t); after > before {
			t.Errorf("%d descriptors are open, before it were %d", after, before)
		}
		ours.Close()
		if _, _, err := Receive(theirs, make([]byte, 10), 1); !errors.Is(err, io.EOF) {
			t.Errorf("the other end is closed: %v", err)
		}
	}
}

// TestLastWords: what the other end has said is heard, though it has closed the socket
// before it read all.
func TestLastWords(t *testing.T) {
	ours, theirs, err := UnixPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	_, err = unix.Write(int(theirs.Fd()), []byte("last"))
	if err := errors.Join(err, Send(ours, []byte("unread")), theirs.Close()); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 10)
	if n, _, err := Receive(ours, data, 0); string(data[:n]) != "last" || err != nil {
		t.Errorf("%q, %v", data[:n], err)
	}
	if _, _, err := Receive(ours, data, 0); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestSendALot with a descriptor on a stream, which takes it in parts.
func TestSendALot(t *testing.T) {
	ours, file, err := UnixPair(unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := UnixConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	const size = 4 << 20
	done := make(chan error, 1)
	go func() {
		done <- Send(ours, make([]byte, size), ours)
		ours.Close()
	}()
	n, passed := 0, 0
	for data := make([]byte, 64<<10); ; {
		got, files, err := Receive(theirs, data, 1)
		for _, f := range files {
			f.Close()
			passed++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += got
	}
	if err := <-done; err != nil || n != size || passed != 1 {
		t.Errorf("%d bytes, %d descriptors, %v", n, passed, err)
	}
}

func TestNoRoom(t *testing.T) {
	ours, theirs, err := UnixPair(unix.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	if err := ours.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for range 1 << 20 {
		if err = Send(ours, make([]byte, 1<<10), os.Stdout); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestNotAUnixSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := UnixListener(f); err == nil || !strings.Contains(err.Error(), "not a Unix socket") {
		t.Error(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := UnixConn(null); err == nil {
		t.Error("a connection of a device")
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
