package interpose

import (
	"net"

	"github.com/shimtrace/shimtrace/internal/handover"
)

// ahead returns the two ends, each with the bytes that were read from it.
func (c *connection) ahead() (client, server net.Conn) {
	client = c.client
	if len(c.fromClient) > 0 {
		client = &handover.Ahead{UnixConn: c.client, Bytes: c.fromClient}
	}
	return client, &handover.Ahead{UnixConn: c.server, Bytes: c.fromServer, Raw: c.line}
}
