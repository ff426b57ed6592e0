package procevents

import (
	"encoding/binary"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// what says what happened to a process (Linux, include/uapi/linux/cn_proc.h).
type what uint32

const (
	none     what = 0 // an acknowledgement
	forked   what = 1
	executed what = 2
	exited   what = 0x80000000
)

// event is something that happened to a process as a whole: threads have none.
type event struct {
	What what
	PID  int // the process's; of a fork, the child's
	// Parent is the process that forked; 0 if it is no fork.
	Parent int
	// At is when, on CLOCK_MONOTONIC.
	At time.Duration
	// Status is a wait status, of an exit.
	Status uint32
}

// Sizes and positions in bytes, from the start of a datagram: struct nlmsghdr, struct
// cn_msg, struct proc_event.
const (
	headerSize = 16
	atIndex    = headerSize // cn_msg: idx, val, seq, ack u32, len, flags u16
	atLength   = headerSize + 16
	atEvent    = headerSize + 20
	atWhat     = atEvent // proc_event: what, cpu u32, timestamp u64
	atTime     = atEvent + 8
	atData     = atEvent + 16
	// Of exec and exit the process, of fork its parent: thread and thread group.
	atThread = atData
	atGroup  = atData + 4
	// Of fork.
	atChild      = atData + 8
	atChildGroup = atData + 12
	// Of exit.
	atStatus = atData + 8
	// connectorProc is CN_IDX_PROC, and CN_VAL_PROC.
	connectorProc = 1
	// leastEvent is the size of an acknowledgement's event, which has an error alone, and
	// of an exec's.
	leastEvent = 16 + 8
)

// errMalformed is returned for a datagram that is no process event.
var errMalformed = errors.New("not a process event")

// parse calls f with each event of a datagram that is about a whole process. ack is called
// with the kernel's answer to a request, an errno.
func parse(datagram []byte, f func(event), ack func(errno uint32)) error {
	order := binary.NativeEndian
	for len(datagram) > 0 {
		if len(datagram) < atEvent+leastEvent {
			return errMalformed
		}
		size := int(order.Uint32(datagram))
		if size < atEvent+leastEvent || size > len(datagram) {
			return errMalformed
		}
		m := datagram[:size]
		datagram = datagram[min(len(datagram), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		if order.Uint32(m[atIndex:]) != connectorProc || order.Uint32(m[atIndex+4:]) != connectorProc ||
			int(order.Uint16(m[atLength:])) > size-atEvent {
			return errMalformed
		}
		e := event{What: what(order.Uint32(m[atWhat:])), At: time.Duration(order.Uint64(m[atTime:])), PID: int(order.Uint32(m[atGroup:]))}
		thread := int(order.Uint32(m[atThread:]))
		switch e.What {
		case none:
			ack(order.Uint32(m[atData:]))
			continue
		case forked:
			if size < atChildGroup+4 {
				return errMalformed
			}
			e.Parent = e.PID
			thread, e.PID = int(order.Uint32(m[atChild:])), int(order.Uint32(m[atChildGroup:]))
		case executed:
		case exited:
			if size < atStatus+4 {
				return errMalformed
			}
			e.Status = order.Uint32(m[atStatus:])
		default:
			continue
		}
		if thread == e.PID && e.PID > 0 {
			f(e)
		}
	}
	return nil
}

// request returns the message that has the kernel begin, or end, to send events
// (PROC_CN_MCAST_LISTEN, PROC_CN_MCAST_IGNORE).
func request(op uint32) []byte {
	order := binary.NativeEndian
	const size = atEvent + 4
	m := make([]byte, size)
	order.PutUint32(m[0:], size)
	order.PutUint16(m[4:], unix.NLMSG_DONE)
	order.PutUint32(m[atIndex:], connectorProc)
	order.PutUint32(m[atIndex+4:], connectorProc)
	order.PutUint16(m[atLength:], 4)
	order.PutUint32(m[atEvent:], op)
	return m
}

const (
	opListen = 1
	opIgnore = 2
)
