package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/procevents"
)

// The link protocol. A link is a SOCK_SEQPACKET Unix socket: guard.sock in the state
// directory, or for a process that the guard has started, descriptor 3. Each packet is
// one message, a JSON object, with the descriptors that it names beside it. Keys and
// messages that a receiver does not know are ignored, so that one side may be newer;
// a change that is not understood that way takes another Version.
//
// A relay says
//
//	register  who it is (Who), with a pidfd of itself; always first
//	store     an entry: Name, Kind, Data and its descriptors; replaces that of the name
//	remove    the entry Name
//	complete  what is stored is all that a successor needs; before that there is none
//	claim     VMs with this CID are its sandbox's; 0: it takes those that nobody claims
//	follow    it wants to know of the processes below PID, which began at Start (VM: none of
//	          them is in a container); again, of those below another one
//	watch     it wants to know of changes of the files with these Paths, in the place of others
//	leaving   it ends in order: nobody is to go on
//	handedover  it has stopped, as asked for, and ends: its standby is to go on
//	refused   it does not hand over (Error)
//
// none of which is answered. The guard says
//
//	refused     it does not take this relay (Error), and closes the link
//	connection  a VM's connection, unread: its CID, and a descriptor
//	handover    stop at the next frame's end, then say so
//	process     what happened to a process (Process), or why none will be told of (Error)
//	watching    changes of the files will be told of from now on, or why not (Error)
//	changed     a file has changed, or what its path leads to
//
// A process that the guard has started, to follow a relay, is told
//
//	prepare  whom it is to follow (Who)
//	store    each entry, with its descriptors
//	resume   that was all: go on (Cause, PID, At, Attempt)
//
// and says ready once it could go on, or refused (Error), and when it goes on, register
// as any relay does. A standby is told to go on when its relay has handed over or died.
//
// The operator's tool says ping, status, upgrade (ID, Program, DryRun) or replace (Program),
// and is answered by any number of relay messages and one done (Error).
const (
	typeRegister   = "register"
	typeStore      = "store"
	typeRemove     = "remove"
	typeComplete   = "complete"
	typeClaim      = "claim"
	typeFollow     = "follow"
	typeWatch      = "watch"
	typeLeaving    = "leaving"
	typeHandedOver = "handedover"
	typeRefused    = "refused"
	typeConnection = "connection"
	typeHandOver   = "handover"
	typeProcess    = "process"
	typeWatching   = "watching"
	typeChanged    = "changed"
	typePrepare    = "prepare"
	typeResume     = "resume"
	typeReady      = "ready"
	typePing       = "ping"
	typeStatus     = "status"
	typeUpgrade    = "upgrade"
	typeReplace    = "replace"
	typeRelay      = "relay"
	typeDone       = "done"
)

// Version is that of the link protocol.
const Version = 1

// Bounds of one message and of what a relay may leave with the guard.
const (
	maxPacket  = 32 << 10 // bytes of a register, which has the environment
	maxSmall   = 8 << 10  // bytes of any other message
	maxFiles   = 8        // descriptors beside a message
	maxName    = 128      // bytes of an entry's name
	maxData    = 4 << 10  // bytes of an entry's data
	maxEntries = 512      // of a relay
	maxClaims  = 16       // of a relay, which has one sandbox
	maxRelays  = 4096
)

// message is any of the above.
type message struct {
	Version int           `json:"version"`
	Type    string        `json:"type"`
	Name    string        `json:"name,omitempty"`
	Kind    Kind          `json:"kind,omitempty"`
	Data    []byte        `json:"data,omitempty"`
	Files   int           `json:"files,omitempty"` // descriptors beside the message
	CID     uint32        `json:"cid,omitempty"`
	Who     *Registration `json:"who,omitempty"`
	ID      string        `json:"id,omitempty"`
	Program string        `json:"program,omitempty"`
	Cause   Cause         `json:"cause,omitempty"`
	PID     int           `json:"pid,omitempty"`
	Start   uint64        `json:"start,omitempty"`
	VM      bool          `json:"vm,omitempty"`
	At      time.Time     `json:"at,omitzero"`
	Attempt int           `json:"attempt,omitempty"`
	DryRun  bool          `json:"dry_run,omitempty"`
	Pause   time.Duration `json:"pause_ns,omitempty"` // of an upgrade that is done
	Relay   *Status       `json:"relay,omitempty"`
	// Unrecorded says in a done message why the guard has no process events.
	Unrecorded string             `json:"unrecorded,omitempty"`
	Process    *procevents.Report `json:"process,omitempty"`
	Paths      []string           `json:"paths,omitempty"`
	Error      string             `json:"error,omitempty"`
}

// Registration says who a relay is, and how its successor is started.
type Registration struct {
	// ID is the path of the socket that it relays: no other relay has it.
	ID string `json:"id"`
	// Program is the path of the program, where an update would put a new one. Args,
	// argv[0] included, and Env are those of a successor, which gets its link as descriptor
	// 3.
	Program string   `json:"program"`
	Args    []string `json:"args"`
	Env     []string `json:"env,omitempty"`
	// Sandbox and Pod are what a person calls it by.
	Sandbox string `json:"sandbox,omitempty"`
	Pod     string `json:"pod,omitempty"`
	// TraceID and SpanID are what lines of the guard's log about the sandbox belong to;
	// empty: nothing that is recorded.
	TraceID string `json:"trace_id,omitempty"`
	SpanID  string `json:"span_id,omitempty"`
	// Build is the version of the program. Formats are those of what lies in memories
	// and entries' data, by name: a successor says whether it takes them.
	Build   string         `json:"build,omitempty"`
	Formats map[string]int `json:"formats,omitempty"`
}

// Kind says how the guard can tell by an entry that the relay hangs.
type Kind string

const (
	// Kept is only kept.
	Kept Kind = ""
	// Listener is a listening socket: connections must not wait there.
	Listener Kind = "listener"
	// Relayed are two connections and a memory: bytes must not wait in one while the
	// other takes some, and the memory does not change.
	Relayed Kind = "relayed"
	// Stream is a connection that is read only, and a memory.
	Stream Kind = "stream"
)

// Cause says why a relay has a successor.
type Cause string

const (
	Killed  Cause = "killed" // it ended without a word
	Hung    Cause = "hung"   // it did not move while bytes waited, and was killed
	Upgrade Cause = "upgrade"
)

// errProtocol is returned for what is not a message, or is one beyond the bounds.
var errProtocol = errors.New("not a message of the guard's protocol")

// encode returns a message's packet.
func (m message) encode() ([]byte, error) {
	m.Version = Version
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(b) > m.limit() {
		return nil, fmt.Errorf("%w: %s of %d bytes", errProtocol, m.Type, len(b))
	}
	return b, nil
}

func (m message) limit() int {
	if m.Type == typeRegister || m.Type == typePrepare {
		return maxPacket
	}
	return maxSmall
}

// decode reads a packet, beside which came a number of descriptors.
func decode(packet []byte, files int) (m message, err error) {
	if err := json.Unmarshal(packet, &m); err != nil {
		return message{}, fmt.Errorf("%w: %w", errProtocol, err)
	}
	switch {
	case m.Version < 1 || m.Version > Version:
		return message{}, fmt.Errorf("%w: version %d, this is version %d", errVersion, m.Version, Version)
	case len(packet) > m.limit(), len(m.Name) > maxName, len(m.Data) > maxData:
		return message{}, fmt.Errorf("%w: %.20q is too large", errProtocol, m.Type)
	case m.Files != files:
		return message{}, fmt.Errorf("%w: %d of %d descriptors of %.20q arrived", host.ErrDescriptors, files, m.Files, m.Type)
	case m.Type == typeRegister && (m.Who == nil || m.Who.ID == "" || m.Who.Program == "" || len(m.Who.Args) == 0 || files != 1),
		m.Type == typeStore && (m.Name == "" || files == 0 || files != m.Kind.files() && m.Kind != Kept):
		return message{}, fmt.Errorf("%w: %.20q lacks something", errProtocol, m.Type)
	}
	for _, k := range []Kind{Listener, Relayed, Stream} {
		if m.Kind == k {
			m.Kind = k // the constant's memory, not a copy
		}
	}
	return m, nil
}

// errVersion means that the other side is newer.
var errVersion = errors.New("another version of the guard's protocol")

// files is how many descriptors an entry of the kind has, 0 if any number.
func (k Kind) files() int {
	switch k {
	case Listener:
		return 1
	case Stream:
		return 2
	case Relayed:
		return 3
	}
	return 0
}
