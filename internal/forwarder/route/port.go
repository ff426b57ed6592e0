package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// TakenError says that another process has the endpoint's port, and gets what runtimes
// post meanwhile.
type TakenError struct {
	At string
	// By is who has it, the zero Holder if that is not known.
	By  host.Holder
	Err error
}

func (e *TakenError) Error() string {
	if e.By == (host.Holder{}) {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v by %v", e.Err, e.By)
}

func (e *TakenError) Unwrap() error { return e.Err }

// Open opens the endpoint's port; at is an address with a numeric port. If another
// process has it, the error is a *TakenError.
func Open(at string) (*net.TCPListener, error) {
	l, err := net.Listen("tcp", at)
	if err == nil {
		return l.(*net.TCPListener), nil
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return nil, err
	}
	taken := &TakenError{At: at, Err: err}
	if addr, perr := netip.ParseAddrPort(at); perr == nil {
		taken.By, _, _ = host.Proc("/proc").Holder(addr)
	}
	return nil, taken
}
