package vmshim

import "net"

// ServeHybrid is a VMM's hybrid VSOCK for tests, until it is closed.
func ServeHybrid(l net.Listener, ports map[uint32]string) (closed func()) {
	return serveHybrid(l, ports).close
}
