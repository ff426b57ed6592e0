package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// askTime bounds an answer: an upgrade waits for a process to start, and for the relay.
const askTime = 15 * time.Second

// Self is what a guard says of itself.
type Self struct {
	PID   int
	Build string
	// Unrecorded is why the processes below inner shims are not recorded; empty if they are,
	// or if no relay wants to know of them.
	Unrecorded string
	pause      time.Duration // of an upgrade
}

// Ask returns the guard of a state directory and the relays that are registered.
func Ask(ctx context.Context, dir string) (Self, []Status, error) {
	return ask(ctx, dir, message{Type: typeStatus})
}

// Ping reports whether the guard of a state directory does its work.
func Ping(ctx context.Context, dir string) error {
	_, _, err := ask(ctx, dir, message{Type: typePing})
	return err
}

// UpgradeRelay has the relay with the ID (Status.ID) become the program at a path. It
// returns how long nobody relayed, at most. With dryRun the program is only asked whether
// it could go on.
func UpgradeRelay(ctx context.Context, dir, id, program string, dryRun bool) (pause time.Duration, err error) {
	self, _, err := ask(ctx, dir, message{Type: typeUpgrade, ID: id, Program: program, DryRun: dryRun})
	return self.pause, err
}

// Replace has the guard become the program at a path.
func Replace(ctx context.Context, dir, program string) error {
	_, _, err := ask(ctx, dir, message{Type: typeReplace, Program: program})
	if errors.Is(err, io.EOF) {
		return nil // its links end with it
	}
	return err
}

func ask(ctx context.Context, dir string, m message) (self Self, all []Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	link, err := dial(dir)
	if err != nil {
		return self, nil, err
	}
	defer link.Close()
	defer context.AfterFunc(ctx, func() { _ = link.SetReadDeadline(time.Unix(1, 0)) })()
	if err := host.Control(link, func(fd int) error { return sendPacket(fd, m) }); err != nil {
		return self, nil, fmt.Errorf("ask the guard: %w", err)
	}
	buf := make([]byte, maxPacket)
	for {
		m, files, err := awaitPacket(link, buf)
		host.CloseAll(files)
		switch {
		case err != nil && ctx.Err() != nil:
			return self, nil, fmt.Errorf("ask the guard: no answer: %w", ctx.Err())
		case err != nil:
			return self, nil, fmt.Errorf("ask the guard: %w", err)
		case m.Type == typeRelay && m.Relay != nil:
			all = append(all, *m.Relay)
		case m.Type == typeRefused:
			return self, nil, fmt.Errorf("ask the guard: %s", m.Error)
		case m.Type == typeDone && m.Error != "":
			return self, nil, errors.New(m.Error)
		case m.Type == typeDone:
			self.PID, self.pause, self.Unrecorded = m.PID, m.Pause, m.Unrecorded
			if m.Who != nil {
				self.Build = m.Who.Build
			}
			return self, all, nil
		}
	}
}
