package otlprecv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ListenTCP listens on a TCP address in the network namespace at path, or in our
// own if path is empty. A socket stays in the namespace it was made in,
// whichever thread uses it later.
func ListenTCP(path, addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	if path == "" {
		return net.Listen("tcp", addr)
	}
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result)
	// A goroutine of its own: if its thread cannot return to our namespace,
	// the goroutine ends without unlocking it, and Go discards the thread.
	go func() {
		var res result
		res.err = inNetNS(path, func() (err error) {
			res.l, err = net.Listen("tcp", addr)
			return err
		})
		done <- res
	}()
	res := <-done
	if res.err != nil && res.l != nil {
		res.l.Close()
		res.l = nil
	}
	return res.l, res.err
}

// inNetNS calls f on a thread that is in the network namespace at path.
func inNetNS(path string, f func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return err
	}
	defer target.Close()
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer own.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", path, err)
	}
	err = f()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave %s: %w", path, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Dialer returns a function that connects from the network namespace at path, to an
// address without a name.
func Dialer(path string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		failed := inNetNS(path, func() error {
			conn, err = new(net.Dialer).DialContext(ctx, network, addr)
			return err
		})
		return conn, failed
	}
}
