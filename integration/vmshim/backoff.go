package vmshim

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// awaitAgent returns when an attempt to reach the agent behind a hybrid socket has worked.
// It sleeps after each that has not.
func awaitAgent(url string, backoff time.Duration) error {
	path, port, ok := strings.Cut(strings.TrimPrefix(url, "hvsock://"), ":")
	if !ok {
		return fmt.Errorf("back off from %s: it is no hybrid socket", url)
	}
	for deadline := time.Now().Add(dialTimeout * time.Second); ; time.Sleep(backoff) {
		err := attempt(path, port)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// attempt is one, whose connection is of no further use.
func attempt(path, port string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "CONNECT %s\n", port); err != nil {
		return err
	}
	var answer string
	_, err = fmt.Fscanf(conn, "OK %s\n", &answer)
	return err
}
