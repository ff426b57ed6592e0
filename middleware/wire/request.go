package wire

import (
	"errors"
	"fmt"

	"github.com/shimtrace/shimtrace/internal/protofields"
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
	f := protofields.Of(b)
	for f.Next() {
		switch {
		case f.Is(requestService):
			r.Service = f.Bytes
		case f.Is(requestMethod):
			r.Method = f.Bytes
		case f.Is(requestPayload):
			r.Payload = f.Bytes
		case f.Has(requestTimeout, protowire.VarintType):
			r.TimeoutNano = int64(f.Value)
		case f.Is(requestMetadata):
			if len(r.Metadata) == maxMetadata {
				return fmt.Errorf("%w: more than %d metadata entries", ErrEnvelope, maxMetadata)
			}
			m := Metadata{start: f.Start, end: f.End}
			if err := m.scan(f.Bytes); err != nil {
				return err
			}
			r.Metadata = append(r.Metadata, m)
		}
	}
	return envelopeError(&f)
}

func (m *Metadata) scan(b []byte) error {
	f := protofields.Of(b)
	for f.Next() {
		switch {
		case f.Is(keyValueKey):
			m.Key = f.Bytes
		case f.Is(keyValueValue):
			m.Value = f.Bytes
		}
	}
	return envelopeError(&f)
}

// envelopeError returns why not all fields could be read, nil if they were.
func envelopeError(f *protofields.Fields) error {
	if err := f.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	return nil
}

// AppendMetadata appends one metadata field of a request's envelope to b. A
// repeated field may stand anywhere in a message, so that an envelope is given
// more metadata by putting such fields behind it.
func AppendMetadata[T string | []byte](b []byte, key string, value T) []byte {
	n := protowire.SizeTag(keyValueKey) + protowire.SizeBytes(len(key)) +
		protowire.SizeTag(keyValueValue) + protowire.SizeBytes(len(value))
	b = protowire.AppendTag(b, requestMetadata, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(n))
	b = protowire.AppendTag(b, keyValueKey, protowire.BytesType)
	b = protowire.AppendString(b, key)
	b = protowire.AppendTag(b, keyValueValue, protowire.BytesType)
	return append(protowire.AppendVarint(b, uint64(len(value))), value...)
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
