package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// maxAnswer bounds an answer in bytes.
	maxAnswer = 1 << 20
	// askTime bounds all of a request: a relay answers when its journal has the
	// root of a new trace.
	askTime = 10 * time.Second
)

// Ask sends the request to the relay that listens on a socket and returns its
// answer. An answer with an error is returned as an error, beside the answer. It
// takes at most 10 seconds.
func Ask(ctx context.Context, socket string, r Request) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return Answer{}, fmt.Errorf("ask the relay: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r.Version = version
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return Answer{}, fmt.Errorf("ask the relay: %w", err)
	}
	var a Answer
	err = json.NewDecoder(io.LimitReader(conn, maxAnswer)).Decode(&a)
	switch {
	case errors.Is(err, io.EOF):
		return Answer{}, fmt.Errorf("ask the relay: it has ended, or does not take requests of this user: %s", socket)
	case err != nil && ctx.Err() != nil:
		return Answer{}, fmt.Errorf("ask the relay: no answer from %s: %w", socket, ctx.Err())
	case err != nil:
		return Answer{}, fmt.Errorf("ask the relay: answer from %s: %w", socket, err)
	case a.Error != "":
		return a, errors.New(a.Error)
	case a.Version != version:
		return a, fmt.Errorf("the relay answers in version %d, this is version %d: use the shimtrace that it was started from", a.Version, version)
	}
	return a, nil
}
