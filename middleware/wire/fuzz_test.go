package wire_test

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

func FuzzHeader(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03\x00\x00\x00\x01\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < wire.HeaderLen {
			return
		}
		if got := wire.ParseHeader(b).Append(nil); !bytes.Equal(got, b[:wire.HeaderLen]) {
			t.Errorf("%x became %x", b[:wire.HeaderLen], got)
		}
	})
}

// FuzzRequest: what protobuf reads is read the same, and has its metadata changed
// without any change to the rest.
func FuzzRequest(f *testing.F) {
	f.Add(marshal(f, full), "traceparent")
	f.Add(marshal(f, &ttrpc.Request{}), "")
	f.Add(append(marshal(f, full), marshal(f, full)...), "empty")
	f.Add([]byte{0x2a, 3, 0x0a, 9, 'k'}, "k")
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		var r wire.Request
		err := r.Scan(b)
		var want ttrpc.Request
		if proto.Unmarshal(b, &want) != nil {
			return // nobody understands it, or it has a string that is not UTF-8
		}
		if err != nil {
			if len(want.Metadata) <= 128 {
				t.Fatalf("protobuf reads it, Scan does not: %v", err)
			}
			return
		}
		if d := diff(&r, &want); d != "" {
			t.Fatal(d)
		}
		if !utf8.ValidString(key) {
			return
		}
		got := rebuild(t, b, func(k []byte) bool { return string(k) == key }, key, "new")
		var kept []*ttrpc.KeyValue
		for _, kv := range want.Metadata {
			if kv.Key != key {
				kept = append(kept, kv)
			}
		}
		want.Metadata = append(kept, &ttrpc.KeyValue{Key: key, Value: "new"})
		if !proto.Equal(got, &want) {
			t.Errorf("became %v, want %v", got, &want)
		}
	})
}

// FuzzResponse: what protobuf reads is read the same, and nothing is read of a
// prefix that the whole does not have.
func FuzzResponse(f *testing.F) {
	f.Add(marshal(f, failed(5, "no such container")), uint16(4))
	f.Add(marshal(f, &ttrpc.Response{Payload: []byte("payload")}), uint16(3))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 8, 5}, uint16(8))
	f.Fuzz(func(t *testing.T, b []byte, n uint16) {
		var prefix, r wire.Response
		prefix.Scan(b[:min(int(n), len(b))])
		r.Scan(b)
		var want ttrpc.Response
		if proto.Unmarshal(b, &want) != nil {
			return
		}
		if !bytes.Equal(r.Payload, want.Payload) {
			t.Errorf("payload %x, want %x", r.Payload, want.Payload)
		}
		if st := want.GetStatus(); r.Code != uint32(st.GetCode()) || string(r.Message) != st.GetMessage() {
			t.Errorf("status %d %q, want %v", r.Code, r.Message, st)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte("\x0a\x02id\x12\x04exec\x18\x09"))
	f.Add([]byte("\x08\x01\x12\x06\x08\x80\x80\x80\x80\x06"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for num := range 5 {
			num := 1 + num
			if v, ok := wire.Uint(b, protowire.Number(num)); !ok && v != 0 {
				t.Errorf("field %d is not there and %d", num, v)
			}
			if at := wire.Time(b, protowire.Number(num)); !at.IsZero() && at.UnixNano() < 0 {
				t.Errorf("field %d: %v does not fit a span", num, at)
			}
			if !bytes.Contains(b, wire.Bytes(b, protowire.Number(num))) {
				t.Errorf("field %d is not a part of the message", num)
			}
		}
	})
}
