package interpose

import (
	"context"
	"net"
	"sync"
)

// connections are the open connections.
type connections struct {
	mu      sync.Mutex
	open    map[*net.UnixConn]struct{}
	running sync.WaitGroup
	ctx     context.Context // cancelled to cut all of them
	cancel  context.CancelFunc
}

func newConnections() *connections {
	c := &connections{open: make(map[*net.UnixConn]struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// begin registers a client's connection.
func (c *connections) begin(client *net.UnixConn) {
	c.running.Add(1)
	c.add(client)
}

// add adds an end to a connection that has begun.
func (c *connections) add(conn *net.UnixConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = struct{}{}
	if c.ctx.Err() != nil {
		conn.Close()
	}
}

// end closes a connection's ends and removes it.
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

// wait waits for all connections to end. When ctx is done it cuts the rest and returns
// ctx's error.
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
