package wire

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of ttrpc's Request and its KeyValue.
const (
	requestService  = 1
	requestMethod   = 2
	requestPayload  = 3
	requestTimeout  = 4
	requestMetadata = 5

	keyValueKey   = 1
	keyValueValue = 2
)

// maxMetadata bounds the metadata entries of a request that is understood.
const maxMetadata = 128

// ErrEnvelope is wrapped by every error of a scan. What cannot be scanned is
// still a frame, to be forwarded as it came.
var ErrEnvelope = errors.New("not a ttrpc envelope")

// Request is a view of a request's envelope: its slices are parts of the scanned
// bytes and live as long as these.
type Request struct {
	Service, Method []byte
	Payload         []byte
	TimeoutNano     int64 // 0: none
	Metadata        []Metadata
}

// Metadata is one key and value of a request. Keys may repeat.
type Metadata struct {
	Key, Value []byte
	start, end int // of the whole field in the envelope
}

// Scan reads the envelope b into r, reusing r's memory. Unknown fields are
// stepped over; a field that repeats overrides, as in any protobuf.
func (r *Request) Scan(b []byte) error {
	*r = Request{Metadata: r.Metadata[:0]}
	for at := 0; at < len(b); {
		num, typ, val, end, err := field(b, at)
		if err != nil {
			return err
		}
		switch {
		case num == requestService && typ == protowire.BytesType:
			r.Service = val
		case num == requestMethod && typ == protowire.BytesType:
			r.Method = val
		case num == requestPayload && typ == protowire.BytesType:
			r.Payload = val
		case num == requestTimeout && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(val)
			r.TimeoutNano = int64(v)
		case num == requestMetadata && typ == protowire.BytesType:
			if len(r.Metadata) == maxMetadata {
				return fmt.Errorf("%w: more than %d metadata entries", ErrEnvelope, maxMetadata)
			}
			m := Metadata{start: at, end: end}
			if err := m.scan(val); err != nil {
				return err
			}
			r.Metadata = append(r.Metadata, m)
		}
		at = end
	}
	return nil
}

func (m *Metadata) scan(b []byte) error {
	for at := 0; at < len(b); {
		num, typ, val, end, err := field(b, at)
		if err != nil {
			return err
		}
		switch {
		case num == keyValueKey && typ == protowire.BytesType:
			m.Key = val
		case num == keyValueValue && typ == protowire.BytesType:
			m.Value = val
		}
		at = end
	}
	return nil
}

// AppendMetadata appends one metadata field of a request's envelope to b. A
// repeated field may stand anywhere in a message, so that an envelope is given
// more metadata by putting such fields behind it.
func AppendMetadata(b []byte, key, value string) []byte {
	n := protowire.SizeTag(keyValueKey) + protowire.SizeBytes(len(key)) +
		protowire.SizeTag(keyValueValue) + protowire.SizeBytes(len(value))
	b = protowire.AppendTag(b, requestMetadata, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = protowire.AppendTag(b, keyValueKey, protowire.BytesType)
	b = protowire.AppendString(b, key)
	b = protowire.AppendTag(b, keyValueValue, protowire.BytesType)
	return protowire.AppendString(b, value)
}

// Without calls keep for each stretch of envelope, the bytes that r was scanned
// from, that is left when the metadata entries for which drop answers true are
// cut out. Nothing is copied.
func (r *Request) Without(envelope []byte, drop func(key []byte) bool, keep func([]byte)) {
	from := 0
	for _, m := range r.Metadata {
		if drop(m.Key) {
			if m.start > from {
				keep(envelope[from:m.start])
			}
			from = m.end
		}
	}
	if from < len(envelope) {
		keep(envelope[from:])
	}
}

// field reads the field at b[at:]: for bytes fields val is the content, for all
// others the encoded value; end is the offset behind it.
func field(b []byte, at int) (num protowire.Number, typ protowire.Type, val []byte, end int, err error) {
	num, typ, n := protowire.ConsumeTag(b[at:])
	if n < 0 {
		return 0, 0, nil, 0, fmt.Errorf("%w: byte %d: %w", ErrEnvelope, at, protowire.ParseError(n))
	}
	at += n
	if typ == protowire.BytesType {
		val, n = protowire.ConsumeBytes(b[at:])
	} else {
		n = protowire.ConsumeFieldValue(num, typ, b[at:])
		if n >= 0 {
			val = b[at : at+n]
		}
	}
	if n < 0 {
		return 0, 0, nil, 0, fmt.Errorf("%w: byte %d: %w", ErrEnvelope, at, protowire.ParseError(n))
	}
	return num, typ, val, at + n, nil
}
