// Package wire reads what ttrpc puts on a connection: frame headers, and the
// envelopes of requests and answers as views into the bytes that carry them.
//
// It copies and re-encodes nothing but metadata, and knows no service. The relay
// and the interceptors of package middleware call it. The format is ttrpc's own
// (github.com/containerd/ttrpc, PROTOCOL.md and request.proto, v1.2.10).
package wire

import "encoding/binary"

const (
	// HeaderLen is the length of a frame header in bytes.
	HeaderLen = 10
	// MaxPayload is the longest payload in bytes that ttrpc takes (channel.go,
	// messageLengthMax); a longer frame is skipped and refused by its receiver.
	MaxPayload = 4 << 20
)

// FrameType is the type of a frame.
type FrameType uint8

// The frame types of ttrpc.
const (
	TypeRequest  FrameType = 1
	TypeResponse FrameType = 2
	TypeData     FrameType = 3
)

// The flags of a frame.
const (
	FlagRemoteClosed uint8 = 1 // the sender sends nothing more on this stream
	FlagRemoteOpen   uint8 = 2 // a request that more data frames follow
	FlagNoData       uint8 = 4 // a data frame without a message
)

// Header is a frame header.
type Header struct {
	Length uint32 // of the payload, bytes
	Stream uint32 // odd when a client chose it
	Type   FrameType
	Flags  uint8
}

// ParseHeader reads a header from the first HeaderLen bytes of b.
func ParseHeader(b []byte) Header {
	_ = b[HeaderLen-1]
	return Header{
		Length: binary.BigEndian.Uint32(b),
		Stream: binary.BigEndian.Uint32(b[4:]),
		Type:   FrameType(b[8]),
		Flags:  b[9],
	}
}

// Append appends the header to b.
func (h Header) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, h.Length)
	b = binary.BigEndian.AppendUint32(b, h.Stream)
	return append(b, byte(h.Type), h.Flags)
}
