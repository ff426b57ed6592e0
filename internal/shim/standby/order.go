package standby

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// The link between a starter and its process is a SOCK_SEQPACKET Unix socket, whose packets
// are JSON. A relay says by a report that it is ready before it is told anything. Restore
// is answered by a report, and Record if Wait is set.

// order is what a starter says to its process; one of the fields is set.
type order struct {
	// Relay is the state of the sandbox whose calls are to be relayed, with two
	// descriptors: the listening socket, and a connection to the inner shim.
	Relay *state.State `json:"relay,omitempty"`
	// Answered: containerd has the relay's address.
	Answered bool `json:"answered,omitempty"`
	// Restore has the VMM of a sandbox get its socket back.
	Restore *state.State `json:"restore,omitempty"`
	Record  *Recording   `json:"record,omitempty"`
	// Wait: the starter waits for the recording. Otherwise the order is not answered, and
	// the recording is made once the starter has ended, so that it takes no processor time
	// from it.
	Wait bool `json:"wait,omitempty"`
}

// maxPacket bounds an order or a report, in bytes. What is longer is an error: a command
// line's sandbox has no state of that size.
const maxPacket = 128 << 10

func send(conn *net.UnixConn, what any, files ...syscall.Conn) error {
	packet, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return host.Send(conn, packet, files...)
}

// receive decodes a packet into what, and returns the descriptors that came with it:
// exactly number, or up to 2 if number is negative.
func receive(conn *net.UnixConn, what any, number int) ([]*os.File, error) {
	packet := make([]byte, maxPacket)
	n, files, err := host.Receive(conn, packet, 2)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(packet[:n], what)
	if err == nil && number >= 0 && len(files) != number {
		err = fmt.Errorf("%d descriptors instead of %d", len(files), number)
	}
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Recording is what a command that containerd waits for would have in the trace. The
// command does not write to the journal itself: a disk that hangs would keep it from
// ending, and containerd from going on, for ever.
type Recording struct {
	// Who is the identity: the bundle may be gone.
	Who       state.Identity `json:"who"`
	Container string         `json:"container"`

	// State is that of the sandbox. A start that has failed has none: its trace is made.
	State  state.State  `json:"state"`
	Timing state.Timing `json:"timing"`
	// Code is the exit status of the inner shim's command, and Response what it has
	// printed.
	Code     int    `json:"code,omitempty"`
	Response []byte `json:"response,omitempty"`
	// Until is by when what a relay that died has left is to be cleared away.
	Until time.Time `json:"until,omitzero"`
	// Failure is why the inner shim did not start, which ends the sandbox trace.
	Failure string `json:"failure,omitempty"`
}

// maxResponse bounds what is passed on of the inner shim's output. A DeleteResponse
// has some twenty bytes.
const maxResponse = 4 << 10

// report is an answer, or that a relay is ready, with the beginning of the sandbox's state.
type report struct {
	State *state.State `json:"state,omitempty"`
	Error string       `json:"error,omitempty"`
}

// Starter is the process that has started this one and gives it orders.
type Starter struct{ conn *net.UnixConn }

// Inherit returns the starter of this process; an error if it was started otherwise.
func Inherit() (*Starter, error) {
	conn, err := host.UnixConn(os.NewFile(linkFD, "starter"))
	if err != nil {
		return nil, fmt.Errorf("only start and delete start this: %w", err)
	}
	_ = json.Unmarshal([]byte("{}"), new(order)) // the first one is slow: do it while there is time
	return &Starter{conn}, nil
}

// Ready says that the relay could go on, with the beginning of the sandbox's state, or why
// it cannot.
func (s *Starter) Ready(st state.State, err error) { s.report(&st, err) }

// Orders are what a process does.
type Orders struct {
	// Relay takes the two descriptors over. It is the last order.
	Relay   func(st state.State, listener, sentinel *os.File)
	Restore func(*state.State) error
	Record  func(*Recording) error
}

// Serve does what the starter says, until there is no more.
func (s *Starter) Serve(do Orders) error {
	for {
		var o order
		files, err := receive(s.conn, &o, -1)
		switch {
		case errors.Is(err, io.EOF): // it has ended
			return nil // not needed any more
		case err != nil:
			return fmt.Errorf("what to do: %w", err)
		case o.Relay != nil && do.Relay != nil && len(files) == 2:
			do.Relay(*o.Relay, files[0], files[1])
			return nil
		case len(files) > 0:
			closeAll(files)
			return errors.New("what to do: descriptors with an order that has none")
		case o.Restore != nil && do.Restore != nil:
			s.report(nil, do.Restore(o.Restore))
		case o.Record != nil && do.Record != nil && o.Wait:
			s.report(nil, do.Record(o.Record))
		case o.Record != nil && do.Record != nil:
			s.awaitEnd()
			_ = do.Record(o.Record)
			return nil
		default:
			return errors.New("what to do: not an order for this process")
		}
	}
}

// Answered waits for the starter's last word, and reports whether containerd has the
// relay's address. If not, the starter was killed, or containerd is gone.
func (s *Starter) Answered() bool {
	defer s.conn.Close()
	var o order
	if _, err := receive(s.conn, &o, 0); err != nil || !o.Answered {
		return false
	}
	s.awaitEnd()
	return true
}

// awaitEnd waits for the starter's end, which is about to come and for which containerd
// waits. What this process does after that does not slow the starter down.
func (s *Starter) awaitEnd() {
	_ = s.conn.SetReadDeadline(time.Now().Add(endTime))
	_, _ = s.conn.Read(make([]byte, 1))
}

// endTime is how long a starter that has said its last word may take to end.
const endTime = 100 * time.Millisecond

// report answers the starter. Nobody gets the answer if the starter has not waited.
func (s *Starter) report(st *state.State, err error) {
	r := report{State: st}
	if err != nil {
		r = report{Error: err.Error()}
	}
	_ = send(s.conn, r)
}
