package wire

import (
	"github.com/shimtrace/shimtrace/internal/protofields"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of ttrpc's Response and of google.rpc.Status.
const (
	responseStatus  = 1
	responsePayload = 2

	statusCode    = 1
	statusMessage = 2
)

// Response is a view of an answer's envelope: its slices are parts of the
// scanned bytes.
type Response struct {
	Code    uint32 // google.rpc.Code; 0 is OK
	Message []byte
	Payload []byte
}

// Scan reads as much of an answer's envelope as b has: b may be the beginning of
// a longer one, and what is cut off is left out. The status comes first in every
// known implementation, so that a prefix tells how the call ended.
func (r *Response) Scan(b []byte) {
	*r = Response{}
	for f := protofields.Of(b); f.Next() || f.Cut(); {
		switch {
		case f.Is(responseStatus):
			r.status(f.Bytes)
		case f.Is(responsePayload):
			r.Payload = f.Bytes
		}
	}
}

func (r *Response) status(b []byte) {
	for f := protofields.Of(b); f.Next() || f.Cut(); {
		switch {
		case f.Has(statusCode, protowire.VarintType):
			r.Code = uint32(f.Value)
		case f.Is(statusMessage):
			r.Message = f.Bytes
		}
	}
}
