// Command copy is a relay that only copies: what it costs is what any relay of bytes does.
// It listens at the path that is its first argument, and dials the second one.
package main

import (
	"net"
	"os"
	"sync"
)

func main() {
	l, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	for {
		client, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			server, err := net.Dial("unix", os.Args[2])
			if err != nil {
				panic(err)
			}
			var both sync.WaitGroup
			both.Go(func() { pass(client, server) })
			both.Go(func() { pass(server, client) })
			both.Wait()
			client.Close()
			server.Close()
		}()
	}
}

// pass copies one direction. It does not use splice, which is slower for what is small.
func pass(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			_ = to.(*net.UnixConn).CloseWrite()
			return
		}
	}
}
