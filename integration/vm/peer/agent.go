package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/mdlayher/vsock"
)

// An agent keeps a connection to its host and sends on it what it is told to, as
// the Kata agent does while its VM lives.
type agent struct {
	cid, port string

	mu   sync.Mutex
	conn net.Conn
}

// serveAgent takes commands on a port of its own, a line each: "connect" makes a
// new connection, "send FILE" sends a file on it.
func serveAgent(cid, port, control string) error {
	l, err := listen(control)
	if err != nil {
		return err
	}
	fmt.Println("peer: agent is up")
	a := &agent{cid: cid, port: port}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go a.obey(conn)
	}
}

func (a *agent) obey(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		command, file, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch command {
		case "connect":
			err = a.connect()
		case "send":
			err = a.send(file)
		default:
			err = errors.New("unknown command")
		}
		if err != nil {
			fmt.Fprintln(conn, "error:", err)
			continue
		}
		fmt.Fprintln(conn, "done")
	}
}

func (a *agent) connect() error {
	conn, err := connect(a.cid, a.port)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn = conn
	go func() {
		_, err := io.Copy(io.Discard, conn)
		fmt.Println("peer: the host ended the agent's connection:", err)
	}()
	return nil
}

func (a *agent) send(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil {
		return errors.New("not connected")
	}
	_, err = a.conn.Write(data)
	return err
}

// listen listens on a port for any caller.
func listen(port string) (net.Listener, error) {
	n, err := number(port)
	if err != nil {
		return nil, err
	}
	const anyCID = 1<<32 - 1
	return vsock.ListenContextID(anyCID, n, nil)
}
