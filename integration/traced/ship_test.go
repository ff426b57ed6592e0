package traced_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestShipping takes a collector away and brings it back. Containers never notice,
// and no span is missing or comes twice.
func TestShipping(t *testing.T) {
	t.Parallel()
	for protocol, endpoint := range map[string]string{"http/protobuf": httpAddr, "grpc": grpcAddr} {
		t.Run(protocol, func(t *testing.T) {
			c := uncollected(t, traced.Options{
				Options: rig.Options{Version: rig.V24},
				Config:  fmt.Sprintf("[export]\nendpoint = 'http://%s'\nprotocol = '%s'\n", endpoint, protocol),
			})

			// Nobody listens, and in the end no relay is left that could have kept spans.
			c.runMany(4)
			if len(settled(t, c.Install)) == 0 {
				t.Fatal("the journal is empty")
			}

			// Who wants to ship too is told that it is being done.
			out := c.ship("--once")
			if !strings.Contains(out, "another process ships") {
				t.Errorf("a second shipper says %q", out)
			}

			// A shipper that dies is replaced by the next relay.
			dead := c.shipper()
			check(t, syscall.Kill(dead.PID, syscall.SIGKILL))
			until(t, "the shipper to be gone", func() bool { return len(c.shippers()) == 0 })
			c.runMany(1)
			if c.shipper().PID == dead.PID {
				t.Fatal("the shipper lives")
			}

			c.listen()
			c.wantShipped()
			until(t, "the shipper to end for want of work", func() bool { return len(c.shippers()) == 0 })

			// Further spans have a shipper of their own, which takes no for an answer.
			c.recv.Fail(otlprecv.Fault{Status: 503, Code: codes.Unavailable, Times: 2})
			c.runMany(1)
			c.wantShipped()
			if c.recv.Attempts() < len(c.recv.Requests())+2 {
				t.Errorf("%d attempts for %d requests: the faults were not met", c.recv.Attempts(), len(c.recv.Requests()))
			}
		})
	}
}

// runMany runs so many containers at once, and looks meanwhile how many ship.
func (c *collected) runMany(n int) {
	c.Helper()
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			res := c.Rig.Ctr("run", "--rm", "--runtime", c.Runtime.Shim(), image.Busybox, fmt.Sprintf("c%d", i), "sh", "-c", "exit 3")
			if res.Code != 3 {
				c.Errorf("container %d: %v", i, res.Check())
			}
		})
	}
	go func() {
		wg.Wait()
		close(done)
	}()
	for {
		if s := c.shippers(); len(s) > 1 {
			c.Errorf("more than one ships: %v", s)
		}
		select {
		case <-done:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// shipper is the one process that ships.
func (c *collected) shipper() rig.Process {
	c.Helper()
	var found []rig.Process
	until(c.T, "a shipper", func() bool {
		found = c.shippers()
		return len(found) == 1
	})
	return found[0]
}

// ship runs the tool as a person would and returns what it says.
func (c *collected) ship(args ...string) string {
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	cmd := c.Rig.Command(ctx, c.Bin+"/shimtrace", append([]string{"ship"}, args...)...)
	cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+c.Config)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.Errorf("ship: %v\n%s", err, out)
	}
	return string(out)
}

// wantShipped waits until the collector has what the journal holds, which is to be
// all, once, and in the journal's order.
func (c *collected) wantShipped() {
	c.Helper()
	got := ids(c.arrived())
	if want := ids(settled(c.T, c.Install)); !slices.Equal(want, got) {
		c.Errorf("the collector has %d spans, the journal %d; the first in another place is number %d",
			len(got), len(want), firstDifference(want, got))
	}
}

func firstDifference(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
