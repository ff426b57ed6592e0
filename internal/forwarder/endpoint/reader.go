package endpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/thrift/lib/go/thrift"
)

// reader reads a body field by field. The types that Thrift generates from
// jaeger.thrift would cost several times the body's memory and copy each value, even
// unwanted ones. The first failure stays: after it everything reads as zero and as the
// end, so that callers check once, at the end.
//
// The library is Apache Thrift 0.25.0. Versions before 0.23.0 allocate what a header
// claims (CVE-2026-43868, CVE-2026-41602). Before 0.24.0 and 0.25.0, others of its
// protocols and transports loop or recurse without end (CVE-2026-43871,
// CVE-2026-83663). This version checks a claimed length against the rest of the body.
type reader struct {
	left  *bytes.Buffer
	limit *thrift.TConfiguration
	proto *thrift.TBinaryProtocol
	size  int
	err   error
	at    int // the byte at which err occurred
}

func newReader() *reader {
	left, limit := new(bytes.Buffer), new(thrift.TConfiguration)
	return &reader{left: left, limit: limit, proto: thrift.NewTBinaryProtocolConf(&thrift.TMemoryBuffer{Buffer: left}, limit)}
}

// begin begins a body.
func (r *reader) begin(body []byte) {
	*r.left = *bytes.NewBuffer(body)
	r.limit.MaxMessageSize = int32(max(len(body), 1))
	r.size, r.err, r.at = len(body), nil, 0
}

// ctx is for the library only: nothing here waits.
var ctx = context.Background()

func (r *reader) fail(err error) {
	if r.err != nil || err == nil {
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the body ends inside a value")
	}
	r.err, r.at = err, r.size-r.left.Len()
}

// field begins the next field of a struct; its value must be read or skipped. more is
// false at the struct's end.
func (r *reader) field() (id int16, is thrift.TType, more bool) {
	if r.err != nil {
		return 0, 0, false
	}
	_, is, id, err := r.proto.ReadFieldBegin(ctx)
	r.fail(err)
	return id, is, r.err == nil && is != thrift.STOP
}

// skip skips a field's value; the library bounds the depth.
func (r *reader) skip(is thrift.TType) {
	switch {
	case is == thrift.STRING:
		r.text() // the library copies it
	case r.err == nil:
		r.fail(r.proto.Skip(ctx, is))
	}
}

// list begins a list and returns its length. The library has checked that the rest of
// the body can hold it.
func (r *reader) list(of thrift.TType) int {
	if r.err != nil {
		return 0
	}
	is, n, err := r.proto.ReadListBegin(ctx)
	if err == nil && n > 0 && is != of {
		err = fmt.Errorf("a list of %s in the place of one of %s", is, of)
	}
	r.fail(err)
	if r.err != nil {
		return 0
	}
	return n
}

// text returns a string or binary value as a slice of the body.
func (r *reader) text() []byte {
	n := int(r.i32())
	if n < 0 || n > r.left.Len() {
		r.fail(fmt.Errorf("a string of %d bytes, of which %d are there", n, r.left.Len()))
	}
	if r.err != nil {
		return nil
	}
	return r.left.Next(n)
}

func (r *reader) i32() int32     { return read(r, r.proto.ReadI32) }
func (r *reader) i64() int64     { return read(r, r.proto.ReadI64) }
func (r *reader) bool() bool     { return read(r, r.proto.ReadBool) }
func (r *reader) float() float64 { return read(r, r.proto.ReadDouble) }

func read[T any](r *reader, value func(context.Context) (T, error)) (v T) {
	if r.err != nil {
		return v
	}
	v, err := value(ctx)
	r.fail(err)
	return v
}
