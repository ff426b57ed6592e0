package listen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The relays of a host and their porter talk over a SOCK_SEQPACKET Unix socket.
// Each message is one packet: its kind, a CID (big-endian; 0 where none is meant),
// and for some kinds a descriptor beside it.
const (
	// kindClaim: from a relay; VMs with this CID are of its sandbox.
	kindClaim = 'c'
	// kindListener: the listening VSOCK socket. From the porter, so that the port
	// stays open when the porter ends; from a relay, for a porter that has none.
	kindListener = 'l'
	// kindConnection: from the porter; the connection of the VM with this CID.
	kindConnection = 'v'

	messageSize = 1 + 4
)

// message is one of the above.
type message struct {
	kind byte
	cid  uint32
	file *os.File // nil for none; the receiver's to close
}

// sendTimeout bounds how long a relay may take to make room for a message.
const sendTimeout = time.Second

// descriptor is something with a descriptor to be passed.
type descriptor interface {
	Control(f func(fd uintptr)) error
}

// send sends a message, with a copy of the descriptor unless that is nil.
func send(conn *net.UnixConn, kind byte, cid uint32, d descriptor) error {
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32([]byte{kind}, cid)
	if d == nil {
		_, _, err := conn.WriteMsgUnix(b, nil, nil)
		return err
	}
	var serr error
	if err := d.Control(func(fd uintptr) {
		_, _, serr = conn.WriteMsgUnix(b, unix.UnixRights(int(fd)), nil)
	}); err != nil {
		return err
	}
	return serr
}

// receive waits for the next message; io.EOF when the other side is gone.
func receive(conn *net.UnixConn) (message, error) {
	b := make([]byte, messageSize)
	oob := make([]byte, unix.CmsgSpace(4)) // one descriptor; the kernel closes more
	n, oobn, _, _, err := conn.ReadMsgUnix(b, oob)
	if err != nil {
		return message{}, err
	}
	if n == 0 {
		return message{}, io.EOF
	}
	m := message{kind: b[0], file: passedFile(oob[:oobn])}
	if n == messageSize {
		m.cid = binary.BigEndian.Uint32(b[1:])
	}
	withFile := m.kind == kindListener || m.kind == kindConnection
	if n != messageSize || withFile != (m.file != nil) {
		m.close()
		return message{}, fmt.Errorf("message %q of %d bytes: %w", m.kind, n, errProtocol)
	}
	return m, nil
}

// errProtocol: the other side is of another version, or is no relay.
var errProtocol = errors.New("not what relays say to each other")

func (m message) close() {
	if m.file != nil {
		m.file.Close()
	}
}

// passedFile returns the descriptor in a control message, nil if there is none.
func passedFile(oob []byte) *os.File {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(all) == 0 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&all[0])
	if err != nil || len(fds) == 0 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "passed")
}
