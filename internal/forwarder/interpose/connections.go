package interpose

import (
	"context"
	"net"
	"sync"
)

// connections are those that are open.
type connections struct {
	mu      sync.Mutex
	open    map[*net.UnixConn]struct{}
	running sync.WaitGroup
	ctx     context.Context // done when all are cut
	cancel  context.CancelFunc
}

func newConnections() *connections {
	c := &connections{open: make(map[*net.UnixConn]struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// begin counts a client's connection in.
func (c *connections) begin(client *net.UnixConn) {
	c.running.Add(1)
	c.add(client)
}

// add adds one end of a connection that has begun.
func (c *connections) add(conn *net.UnixConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = struct{}{}
	if c.ctx.Err() != nil {
		conn.Close()
	}
}

// end closes the ends of a connection and counts it out.
func (c *connections) end(ends ...*net.UnixConn) {
	c.mu.Lock()
	for _, conn := range ends {
		delete(c.open, conn)
	}
	c.mu.Unlock()
	for _, conn := range ends {
		conn.Close()
	}
	c.running.Done()
}

// wait waits for all to end, and cuts those that have not when ctx is done.
func (c *connections) wait(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		c.running.Wait()
		close(done)
	}()
	defer c.cancel()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	c.cancel()
	c.mu.Lock()
	for conn := range c.open {
		conn.Close()
	}
	c.mu.Unlock()
	<-done
	return ctx.Err()
}
