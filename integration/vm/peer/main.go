// Command peer is the far end of VSOCK connections in tests: it runs in guests
// and shows on the console what arrives.
//
//	peer serve PORT                accept; print each line, with the peer's CID, and send it back
//	peer dial CID PORT TEXT        connect, send a line, print what comes back
//	peer agent CID PORT CONTROL    connect, keep the connection and send files on it, as told on a port
//	peer call CID PORT METHOD CONTAINER TRACEPARENT    call a Kata agent
//
// It connects until it succeeds: the host may not listen yet. It refuses to run
// outside a guest, where it would reach a real machine's host.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/mdlayher/vsock"

	"github.com/shimtrace/shimtrace/integration/vm"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if os.Getenv(vm.EnvCID) == "" {
		return fmt.Errorf("%s is not set: this is not a guest", vm.EnvCID)
	}
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 4 && args[0] == "dial":
		return dial(args[1], args[2], args[3])
	case len(args) == 4 && args[0] == "agent":
		return serveAgent(args[1], args[2], args[3])
	case len(args) == 6 && args[0] == "call":
		return call(args[1], args[2], args[3], args[4], args[5])
	}
	return errors.New("usage: peer serve PORT | dial CID PORT TEXT | agent CID PORT CONTROL | call CID PORT METHOD CONTAINER TRACEPARENT")
}

func serve(port string) error {
	l, err := listen(port)
	if err != nil {
		return err
	}
	fmt.Println("peer: listening on port", port)
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go echo(conn)
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		fmt.Printf("peer: from CID %d: %s\n", conn.RemoteAddr().(*vsock.Addr).ContextID, lines.Text())
		fmt.Fprintln(conn, lines.Text())
	}
}

func dial(cid, port, text string) error {
	conn, err := connect(cid, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, text); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	fmt.Printf("peer: answer from CID %s: %s", cid, answer)
	return nil
}

// connect tries for longer than a relay or a busy guest needs to listen.
func connect(cid, port string) (net.Conn, error) {
	c, err := number(cid)
	if err != nil {
		return nil, err
	}
	p, err := number(port)
	if err != nil {
		return nil, err
	}
	const patience = 2 * time.Minute
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		conn, err := vsock.Dial(c, p, nil)
		if err == nil || time.Since(start) > patience {
			return conn, err
		}
	}
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}
