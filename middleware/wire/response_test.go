package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

func TestResponseScan(t *testing.T) {
	backtrace := strings.Repeat("0: rustagent::rpc::create_container\n", 1000)
	for name, tt := range map[string]struct {
		answer *ttrpc.Response
		cut    int // bytes left off the end
		want   wire.Response
	}{
		"ok":             {&ttrpc.Response{Payload: []byte("p")}, 0, wire.Response{Payload: []byte("p")}},
		"ok with status": {&ttrpc.Response{Status: &status.Status{}, Payload: []byte("p")}, 0, wire.Response{Payload: []byte("p")}},
		"empty":          {&ttrpc.Response{}, 0, wire.Response{}},
		"failed":         {failed(5, "no such container"), 0, wire.Response{Code: 5, Message: []byte("no such container")}},
		"unknown code":   {failed(99, ""), 0, wire.Response{Code: 99}},
		"cut message":    {failed(2, backtrace), 30000, wire.Response{Code: 2, Message: []byte(backtrace[:len(backtrace)-30000])}},
		"cut payload":    {&ttrpc.Response{Payload: []byte("payload")}, 4, wire.Response{Payload: []byte("pay")}},
		"cut to nothing": {&ttrpc.Response{Payload: []byte("payload")}, 9, wire.Response{}},
	} {
		t.Run(name, func(t *testing.T) {
			b := marshal(t, tt.answer)
			r := wire.Response{Code: 1, Message: []byte("old"), Payload: []byte("old")}
			r.Scan(b[:len(b)-tt.cut])
			if r.Code != tt.want.Code || !bytes.Equal(r.Message, tt.want.Message) || !bytes.Equal(r.Payload, tt.want.Payload) {
				t.Errorf("code %d, message %.80q, payload %q; want %d, %.80q, %q",
					r.Code, r.Message, r.Payload, tt.want.Code, tt.want.Message, tt.want.Payload)
			}
		})
	}
}

// failed is the answer of a call that failed.
func failed(code int32, message string) *ttrpc.Response {
	return &ttrpc.Response{Status: &status.Status{Code: code, Message: message}}
}

// The status is read however little more has come: it is what a span needs most.
func TestResponseScanOfEveryPrefix(t *testing.T) {
	b := marshal(t, failed(5, "no such container"))
	for n := range b {
		var r wire.Response
		r.Scan(b[:n])
		// 2 bytes open the status, 2 are its code.
		if known := n >= 4; known != (r.Code == 5) {
			t.Errorf("%d of %d bytes: code %d", n, len(b), r.Code)
		}
	}
}
