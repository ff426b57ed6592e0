package guard

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Successor is a process that is to follow a relay.
type Successor struct {
	// Who is the relay.
	Who  Registration
	link *net.UnixConn
	buf  []byte
}

// Resumption is what a successor goes on with.
type Resumption struct {
	// Entries are what the relay has stored, in that order.
	Entries []Received
	// Cause is why the relay is followed, PID its process, At when that ended, or handed
	// over.
	Cause Cause
	PID   int
	At    time.Time
	// Attempt is 1, or more if successors before this one have not stayed.
	Attempt int
	// Link is for ClientOptions.Successor.
	Link *net.UnixConn
}

// Received is an entry as a successor gets it.
type Received struct {
	Name  string
	Kind  Kind
	Data  []byte
	Files []*os.File
}

// Entry returns the entry for Client.Store, with what its files have become: a socket's
// file is closed once a connection has been made of it.
func (r Received) Entry(files ...syscall.Conn) Entry {
	return Entry{Name: r.Name, Kind: r.Kind, Data: r.Data, Files: files}
}

// Inherit returns what the guard has started this process for; an error if it has not.
func Inherit() (*Successor, error) {
	link, err := host.UnixConn(os.NewFile(linkFD, "guard"))
	if err != nil {
		return nil, fmt.Errorf("only the guard starts this: %w", err)
	}
	s := &Successor{link: link, buf: make([]byte, maxPacket)}
	_ = link.SetReadDeadline(time.Now().Add(handOverTime))
	m, files, err := awaitPacket(link, s.buf)
	host.CloseAll(files)
	if err == nil && (m.Type != typePrepare || m.Who == nil) {
		err = errProtocol
	}
	if err != nil {
		link.Close()
		return nil, fmt.Errorf("whom to follow: %w", err)
	}
	s.Who = *m.Who
	return s, link.SetReadDeadline(time.Time{})
}

// Ready says that this process can go on, or why it cannot.
func (s *Successor) Ready(err error) error {
	m := message{Type: typeReady}
	if err != nil {
		m = message{Type: typeRefused, Error: err.Error()}
	}
	return host.Control(s.link, func(fd int) error { return sendPacket(fd, m) })
}

// Await waits until this process is to go on. The error is io.EOF if it is not needed
// after all.
func (s *Successor) Await(ctx context.Context) (*Resumption, error) {
	defer context.AfterFunc(ctx, func() { _ = s.link.SetReadDeadline(time.Unix(1, 0)) })()
	r := &Resumption{Link: s.link}
	for {
		m, files, err := awaitPacket(s.link, s.buf)
		if err != nil {
			return nil, err
		}
		switch m.Type {
		case typeStore:
			e := Received{Name: m.Name, Kind: m.Kind, Data: m.Data}
			for _, fd := range files {
				e.Files = append(e.Files, os.NewFile(uintptr(fd), m.Name))
			}
			r.Entries = append(r.Entries, e)
		case typeResume:
			host.CloseAll(files)
			s.buf = nil
			r.Cause, r.PID, r.At, r.Attempt = m.Cause, m.PID, m.At, m.Attempt
			return r, nil
		default:
			host.CloseAll(files)
		}
	}
}
