package testkit

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// FreePort returns an address of the loopback interface with a port that is free, and stays so
// for the length of the test. A process of the test may open the port: a socket has it that
// does not listen, so the kernel gives it to nobody who wants just any.
func FreePort(t testing.TB) (address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	Check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	Check(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)) // as package net does
	Check(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := unix.Getsockname(fd)
	Check(t, err)
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}
