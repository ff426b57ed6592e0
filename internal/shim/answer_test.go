package shim

import (
	"cmp"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// result encodes a BootstrapResult as containerd 2.3 and later do.
func result(version uint64, address, protocol string, more ...byte) []byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), version)
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), address)
	b = protowire.AppendString(protowire.AppendTag(b, 3, protowire.BytesType), protocol)
	return append(b, more...)
}

const (
	innerAddr = "unix:///run/containerd/s/0123456789ABCDEF"
	relayAddr = "unix:///run/shimtrace/s/fedcba.sock"
)

func TestAnswerIsMirrored(t *testing.T) {
	ext := protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), "extension")
	for _, tt := range []struct{ name, in, want string }{
		{"plain", innerAddr, relayAddr},
		{"plain with newline", innerAddr + "\n", relayAddr + "\n"},
		{"protobuf", string(result(3, innerAddr, "ttrpc")), string(result(3, relayAddr, "ttrpc"))},
		{"protobuf with more fields", string(result(3, innerAddr, "ttrpc", ext...)), string(result(3, relayAddr, "ttrpc", ext...))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := parseAnswer([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if a.address != innerAddr || a.protocol != "ttrpc" {
				t.Errorf("address %q, protocol %q", a.address, a.protocol)
			}
			if got := string(a.encode(relayAddr)); got != tt.want {
				t.Errorf("encoded %q, want %q", got, tt.want)
			}
		})
	}
}

func TestJSONAnswerKeepsAllFields(t *testing.T) {
	in := `{"version":3,"address":"` + innerAddr + `","protocol":"ttrpc","later":{"x":[1,2]}}`
	a, err := parseAnswer([]byte(in))
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := json.Unmarshal(a.encode(relayAddr), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(strings.Replace(in, innerAddr, relayAddr, 1)), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	for _, in := range []string{"", " \n", "{", `{"address":7}`, `{"version":3}`, "panic: runtime error", "\xff\xff\xff", string(result(3, "", "ttrpc"))} {
		if a, err := parseAnswer([]byte(in)); !errors.Is(err, errNoAnswer) {
			t.Errorf("%q: answer %+v, error %v", in, a, err)
		}
	}
}

func TestSocketPath(t *testing.T) {
	for _, tt := range []struct{ address, protocol, want string }{
		{"unix:///run/x.sock", "ttrpc", "/run/x.sock"},
		{"/containerd-shim/x.sock", "ttrpc", "\x00/containerd-shim/x.sock"},
		{"vsock://3:1024", "ttrpc", ""},
		{"hvsock:///run/x:1024", "ttrpc", ""},
		{"unix:///run/x.sock", "grpc", ""},
	} {
		got, err := answer{address: tt.address, protocol: tt.protocol}.socketPath()
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%+v: got %q, %v", tt, got, err)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(innerAddr))
	f.Add([]byte(`{"version":3,"address":"` + innerAddr + `","protocol":"ttrpc"}`))
	f.Add(result(3, innerAddr, "ttrpc"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseAnswer(raw)
		if err != nil {
			return
		}
		again, err := parseAnswer(a.encode(relayAddr))
		if err != nil || again.address != relayAddr || again.protocol != a.protocol {
			t.Errorf("%q: mirrored as %q, which reads %+v, %v", raw, a.encode(relayAddr), again, err)
		}
	})
}

// FuzzParseResult holds our reading of an answer in protobuf to containerd's.
func FuzzParseResult(f *testing.F) {
	f.Add(result(3, innerAddr, "ttrpc"))
	f.Add(result(3, innerAddr, "ttrpc", protowire.AppendFixed64(protowire.AppendTag(nil, 9, protowire.Fixed64Type), 1)...))
	f.Add(result(3, innerAddr, "ttrpc", protowire.AppendFixed32(protowire.AppendTag(nil, 9, protowire.Fixed32Type), 1)...))
	f.Add(append(result(3, innerAddr, ""), result(1<<40, "again", "grpc")...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want bootstrap.BootstrapResult
		wrong := proto.Unmarshal(raw, &want)
		a, err := parseResult(raw)
		if err != nil {
			// Unknown fields may be groups, which are refused.
			if wrong == nil && want.Address != "" && len(want.ProtoReflect().GetUnknown()) == 0 {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		if wrong != nil {
			return // a text that is not UTF-8: containerd says so to whoever wrote it
		}
		if a.address != want.Address || a.protocol != cmp.Or(want.Protocol, a.protocol) {
			t.Errorf("%q: read as %+v, want %v", raw, a, &want)
		}
		var mirrored bootstrap.BootstrapResult
		want.Address = relayAddr
		if err := proto.Unmarshal(a.encode(relayAddr), &mirrored); err != nil || !proto.Equal(&mirrored, &want) {
			t.Errorf("%q: mirrored as %v, %v", raw, &mirrored, err)
		}
	})
}
