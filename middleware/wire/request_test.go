package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// full is a request with every field that ttrpc has.
var full = &ttrpc.Request{
	Service:     "containerd.task.v3.Task",
	Method:      "Create",
	Payload:     []byte("\x0a\x02id"),
	TimeoutNano: 10e9,
	Metadata: []*ttrpc.KeyValue{
		{Key: "containerd-namespace-ttrpc", Value: "k8s.io"},
		{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{Key: "empty", Value: ""},
		{Key: "", Value: "no key"},
		{Key: "traceparent", Value: "again"},
	},
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// diff says how a view differs from the message that the real decoder reads, ""
// if it does not.
func diff(r *wire.Request, want *ttrpc.Request) string {
	if string(r.Service) != want.Service || string(r.Method) != want.Method ||
		!bytes.Equal(r.Payload, want.Payload) || r.TimeoutNano != want.TimeoutNano {
		return fmt.Sprintf("%q/%q payload %x timeout %d, want %q/%q payload %x timeout %d",
			r.Service, r.Method, r.Payload, r.TimeoutNano,
			want.Service, want.Method, want.Payload, want.TimeoutNano)
	}
	if len(r.Metadata) != len(want.Metadata) {
		return fmt.Sprintf("%d metadata entries, want %d", len(r.Metadata), len(want.Metadata))
	}
	for i, m := range r.Metadata {
		if string(m.Key) != want.Metadata[i].Key || string(m.Value) != want.Metadata[i].Value {
			return fmt.Sprintf("metadata %q=%q, want %v", m.Key, m.Value, want.Metadata[i])
		}
	}
	return ""
}

func TestRequestScan(t *testing.T) {
	unknown := protowire.AppendTag(nil, 99, protowire.BytesType)
	unknown = protowire.AppendBytes(unknown, []byte("new in some later ttrpc"))
	group := protowire.AppendTag(nil, 98, protowire.StartGroupType)
	group = protowire.AppendTag(group, 98, protowire.EndGroupType)
	wrongType := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)

	for name, b := range map[string][]byte{
		"full":             marshal(t, full),
		"empty":            {},
		"unary":            marshal(t, &ttrpc.Request{Service: "s", Method: "m"}),
		"negative timeout": marshal(t, &ttrpc.Request{TimeoutNano: -1}),
		"unknown fields":   bytes.Join([][]byte{unknown, marshal(t, full), group, unknown}, nil),
		"repeated fields":  append(marshal(t, full), marshal(t, &ttrpc.Request{Service: "other", Payload: []byte("p"), TimeoutNano: 1})...),
		"wrong wire type":  append(marshal(t, full), wrongType...),
		"large":            marshal(t, &ttrpc.Request{Payload: make([]byte, wire.MaxPayload)}),
	} {
		t.Run(name, func(t *testing.T) {
			var want ttrpc.Request
			if err := proto.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			// A view that was used before must not show through.
			r := wire.Request{Service: []byte("old"), TimeoutNano: 3, Metadata: make([]wire.Metadata, 2)}
			if err := r.Scan(b); err != nil {
				t.Fatal(err)
			}
			if d := diff(&r, &want); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRequestScanRefuses(t *testing.T) {
	var many ttrpc.Request
	for range 129 {
		many.Metadata = append(many.Metadata, &ttrpc.KeyValue{Key: "k"})
	}
	for name, b := range map[string][]byte{
		"cut in a tag":          {0x80},
		"cut in a length":       {0x0a, 0x80},
		"cut in a string":       {0x0a, 5, 'a'},
		"cut in metadata":       {0x2a, 3, 0x0a, 9, 'k'},
		"stray end of group":    {0x0c},
		"field number zero":     {0x02, 0},
		"length past the end":   {0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"too many metadata":     marshal(t, &many),
		"not protobuf at all":   []byte("GET / HTTP/1.1\r\n"),
		"varint of eleven byte": append([]byte{0x20}, bytes.Repeat([]byte{0xff}, 11)...),
	} {
		t.Run(name, func(t *testing.T) {
			var r wire.Request
			if err := r.Scan(b); !errors.Is(err, wire.ErrEnvelope) {
				t.Errorf("error %v, want one that wraps ErrEnvelope", err)
			}
		})
	}
}

func TestRequestScanOfEveryPrefix(t *testing.T) {
	b := marshal(t, full)
	for n := range b {
		var r wire.Request
		var want ttrpc.Request
		err, wantErr := r.Scan(b[:n]), proto.Unmarshal(b[:n], &want)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%d of %d bytes: error %v, protobuf's is %v", n, len(b), err, wantErr)
		}
	}
}

func TestWithoutAndAppendMetadata(t *testing.T) {
	isTraceparent := func(key []byte) bool { return string(key) == "traceparent" }
	for name, tt := range map[string]struct {
		in   []*ttrpc.KeyValue
		drop func([]byte) bool
		want []string
	}{
		"nothing to drop":  {kvs("a", "b"), isTraceparent, []string{"a", "b", "new"}},
		"first":            {kvs("traceparent", "b"), isTraceparent, []string{"b", "new"}},
		"last":             {kvs("a", "traceparent"), isTraceparent, []string{"a", "new"}},
		"between":          {kvs("a", "traceparent", "b"), isTraceparent, []string{"a", "b", "new"}},
		"twice in a row":   {kvs("traceparent", "traceparent"), isTraceparent, []string{"new"}},
		"apart":            {kvs("traceparent", "a", "traceparent"), isTraceparent, []string{"a", "new"}},
		"all":              {kvs("a", "b"), func([]byte) bool { return true }, []string{"new"}},
		"none there":       {nil, isTraceparent, []string{"new"}},
		"longer than 127":  {kvs("a", strings.Repeat("k", 300)), isTraceparent, []string{"a", strings.Repeat("k", 300), "new"}},
		"key without text": {kvs("", "traceparent"), isTraceparent, []string{"", "new"}},
	} {
		t.Run(name, func(t *testing.T) {
			req := proto.Clone(full).(*ttrpc.Request)
			req.Metadata = tt.in
			got := rebuild(t, marshal(t, req), tt.drop, "new", "value of new")
			var keys []string
			for _, kv := range got.Metadata {
				if kv.Value != "value of "+kv.Key {
					t.Errorf("%s = %q", kv.Key, kv.Value)
				}
				keys = append(keys, kv.Key)
			}
			if fmt.Sprint(keys) != fmt.Sprint(tt.want) {
				t.Errorf("keys %q, want %q", keys, tt.want)
			}
			got.Metadata, req.Metadata = nil, nil
			if !proto.Equal(got, req) {
				t.Errorf("the rest is %v, want %v", got, req)
			}
		})
	}
}

func kvs(keys ...string) (all []*ttrpc.KeyValue) {
	for _, k := range keys {
		all = append(all, &ttrpc.KeyValue{Key: k, Value: "value of " + k})
	}
	return all
}

// rebuild returns what ttrpc reads of an envelope whose metadata was changed.
func rebuild(t testing.TB, envelope []byte, drop func([]byte) bool, key, value string) *ttrpc.Request {
	t.Helper()
	var r wire.Request
	if err := r.Scan(envelope); err != nil {
		t.Fatal(err)
	}
	var out []byte
	r.Without(envelope, drop, func(part []byte) {
		if len(part) == 0 {
			t.Error("an empty part")
		}
		out = append(out, part...)
	})
	out = wire.AppendMetadata(out, key, value)
	got := new(ttrpc.Request)
	if err := proto.Unmarshal(out, got); err != nil {
		t.Fatalf("ttrpc cannot read the new envelope: %v", err)
	}
	return got
}

func TestAppendMetadataIsWhatProtobufWrites(t *testing.T) {
	for _, kv := range []*ttrpc.KeyValue{
		{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{Key: "k", Value: strings.Repeat("v", 1000)},
	} {
		want := marshal(t, &ttrpc.Request{Metadata: []*ttrpc.KeyValue{kv}})
		if got := wire.AppendMetadata([]byte("before"), kv.Key, kv.Value); !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("got %x, want %x", got, want)
		}
	}
}
