package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Tags of containerd.runtime.bootstrap.v1.BootstrapResult: the number of a field and its type.
const (
	resultVersion  = 1<<3 | typeVarint
	resultAddress  = 2<<3 | typeBytes
	resultProtocol = 3<<3 | typeBytes
)

// Types of fields (protobuf.dev/programming-guides/encoding).
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeFixed32 = 5
)

// parseResult reads a BootstrapResult, without package protowire, which our other programs
// read messages with: when that is initialized, it opens the program's own file and reads parts
// of it, and containerd would wait for this at each start and delete.
func parseResult(raw []byte) (answer, error) {
	a := answer{raw: raw, protocol: "ttrpc"}
	var before, after []byte // all fields but the address, as they came
	for rest := raw; len(rest) > 0; {
		tag, value, size, err := field(rest)
		if err != nil {
			return answer{}, fmt.Errorf("%w: byte %d: %w", errNoAnswer, len(raw)-len(rest), err)
		}
		switch tag {
		case resultVersion:
			before = append(before, rest[:size]...)
		case resultAddress:
			a.address = string(value)
		case resultProtocol:
			a.protocol = string(value)
			fallthrough
		default:
			after = append(after, rest[:size]...)
		}
		rest = rest[size:]
	}
	if a.address == "" {
		return answer{}, fmt.Errorf("%w: it has no address", errNoAnswer)
	}
	a.encode = func(address string) []byte {
		out := binary.AppendUvarint(before, resultAddress)
		out = binary.AppendUvarint(out, uint64(len(address)))
		return append(append(out, address...), after...)
	}
	return a, nil
}

var errField = errors.New("not a field of a message")

// field returns the first field of a message: its tag, its value if that is a text, bytes or a
// message, and its size in bytes.
func field(msg []byte) (tag uint64, value []byte, size int, err error) {
	tag, head := binary.Uvarint(msg)
	if head <= 0 || tag>>3 == 0 {
		return 0, nil, 0, errField
	}
	rest := msg[head:]
	number, n := binary.Uvarint(rest)
	switch tag & 7 {
	case typeFixed64:
		n = 8
	case typeFixed32:
		n = 4
	case typeVarint:
	case typeBytes:
		if n <= 0 || number > uint64(len(rest)-n) {
			return 0, nil, 0, errField
		}
		value = rest[n:][:number]
		n += len(value)
	default: // a group, which nobody writes any more
		n = 0
	}
	if n <= 0 || n > len(rest) {
		return 0, nil, 0, errField
	}
	return tag, value, head + n, nil
}
