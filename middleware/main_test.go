package middleware_test

import (
	"flag"
	"fmt"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware"
)

func TestMain(m *testing.M) {
	if os.Getenv(successorEnv) != "" {
		if err := successor(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(twice{m})
}

// handedOver tells that the relays of the tests have connections that can be handed over.
var handedOver bool

// twice runs the tests with either kind of relay.
type twice struct{ *testing.M }

func (m twice) Run() int {
	if code := m.M.Run(); code != 0 || flag.Lookup("test.bench").Value.String() != "" {
		return code
	}
	handedOver = true
	fmt.Println("and again, with connections that can be handed over:")
	return m.M.Run()
}

// newRelay returns a relay for a test.
func newRelay(opts ...middleware.Option) *middleware.Relay {
	if handedOver {
		opts = append(opts, middleware.WithHandover(middleware.Handover{Begun: copies}))
	}
	return middleware.NewRelay(opts...)
}

// copies has copies of the descriptors until a connection has ended, as a process has
// that is to hand them to another one.
func copies(client, server net.Conn, _ *handover.Memory) (ended func()) {
	var held []interface{ Close() error }
	for _, c := range []net.Conn{client, server} {
		f, err := c.(*net.UnixConn).File()
		if err != nil {
			panic(err)
		}
		held = append(held, f)
	}
	return func() {
		for _, f := range held {
			f.Close()
		}
	}
}
