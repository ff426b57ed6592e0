package wire_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

func TestHeader(t *testing.T) {
	for _, tt := range []struct {
		hex  string
		want wire.Header
	}{
		{"00000000000000000000", wire.Header{}},
		{"00000003000000010100", wire.Header{Length: 3, Stream: 1, Type: wire.TypeRequest}},
		{"00400000000000ff0201", wire.Header{Length: wire.MaxPayload, Stream: 255, Type: wire.TypeResponse, Flags: wire.FlagRemoteClosed}},
		{"ffffffffffffffffffff", wire.Header{Length: 1<<32 - 1, Stream: 1<<32 - 1, Type: 255, Flags: 255}},
	} {
		b, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := wire.ParseHeader(append(b, "payload"...)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.hex, got, tt.want)
		}
		if got := tt.want.Append([]byte("x")); !bytes.Equal(got, append([]byte("x"), b...)) {
			t.Errorf("%+v: %x, want %s", tt.want, got, tt.hex)
		}
	}
}

// TestFramesOfTTRPC holds the constants against what a real client writes.
func TestFramesOfTTRPC(t *testing.T) {
	for name, tt := range map[string]struct {
		call func(*ttrpc.Client)
		want wire.Header
	}{
		"unary": {
			func(c *ttrpc.Client) {
				c.Call(context.Background(), "svc", "Method", wrapperspb.String("x"), new(emptypb.Empty))
			},
			wire.Header{Type: wire.TypeRequest},
		},
		"stream of the server's": {
			func(c *ttrpc.Client) {
				c.NewStream(context.Background(), &ttrpc.StreamDesc{StreamingServer: true}, "svc", "Method", wrapperspb.String("x"))
			},
			wire.Header{Type: wire.TypeRequest, Flags: wire.FlagRemoteClosed},
		},
		"stream of the client's": {
			func(c *ttrpc.Client) {
				c.NewStream(context.Background(), &ttrpc.StreamDesc{StreamingClient: true}, "svc", "Method", wrapperspb.String("x"))
			},
			wire.Header{Type: wire.TypeRequest, Flags: wire.FlagRemoteOpen},
		},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			client := ttrpc.NewClient(there)
			called := make(chan struct{})
			go func() { defer close(called); tt.call(client) }()
			defer func() { here.Close(); client.Close(); <-called }()

			head := make([]byte, wire.HeaderLen)
			if _, err := io.ReadFull(here, head); err != nil {
				t.Fatal(err)
			}
			h := wire.ParseHeader(head)
			if h.Type != tt.want.Type || h.Flags != tt.want.Flags || h.Stream != 1 {
				t.Errorf("%+v, want %+v of stream 1", h, tt.want)
			}
			envelope := make([]byte, h.Length)
			if _, err := io.ReadFull(here, envelope); err != nil {
				t.Fatal(err)
			}
			var r wire.Request
			if err := r.Scan(envelope); err != nil {
				t.Fatal(err)
			}
			if string(r.Service) != "svc" || string(r.Method) != "Method" || !strings.HasSuffix(string(r.Payload), "x") {
				t.Errorf("%q/%q with payload %q", r.Service, r.Method, r.Payload)
			}
		})
	}
}
