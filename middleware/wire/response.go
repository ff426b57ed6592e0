package wire

import "google.golang.org/protobuf/encoding/protowire"

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
	each(b, func(num protowire.Number, typ protowire.Type, val []byte) {
		if typ != protowire.BytesType {
			return
		}
		switch num {
		case responseStatus:
			each(val, r.status)
		case responsePayload:
			r.Payload = val
		}
	})
}

func (r *Response) status(num protowire.Number, typ protowire.Type, val []byte) {
	switch {
	case num == statusCode && typ == protowire.VarintType:
		v, _ := protowire.ConsumeVarint(val)
		r.Code = uint32(v)
	case num == statusMessage && typ == protowire.BytesType:
		r.Message = val
	}
}

// each calls f for the fields of b until b ends or is not understood; a bytes
// field that b cuts off is given as far as it goes.
func each(b []byte, f func(protowire.Number, protowire.Type, []byte)) {
	for at := 0; at < len(b); {
		num, typ, val, end, err := field(b, at)
		if err != nil {
			if num, typ, n := protowire.ConsumeTag(b[at:]); n > 0 && typ == protowire.BytesType {
				if size, m := protowire.ConsumeVarint(b[at+n:]); m > 0 && size > uint64(len(b)-at-n-m) {
					f(num, typ, b[at+n+m:])
				}
			}
			return
		}
		f(num, typ, val)
		at = end
	}
}
