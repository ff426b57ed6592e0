package receiver

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shimtrace/shimtrace/internal/otlpshape"
)

// FuzzJSON: whatever comes, the outcome is a refusal or a valid body, in bounded memory.
func FuzzJSON(f *testing.F) {
	b, err := protojson.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{spansOf("a", some(2)...)}})
	check(f, err)
	f.Add(b)
	f.Add([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","links":[{}]}]}]}]}`))
	r := New((*taken)(nil).take, Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		message, refused := r.fromJSON(b)
		if free := r.room.Free(); free != r.opts.RoomBytes {
			t.Fatalf("%d bytes are free", free)
		}
		if refused != nil {
			return
		}
		if _, err := parse(message); err != nil && !errors.Is(err, otlpshape.ErrDepth) && !errors.Is(err, errDense) {
			t.Fatal(err)
		}
	})
}

// FuzzGRPC: whatever a client sends as the body of a call, it is taken or refused.
func FuzzGRPC(f *testing.F) {
	good := body(f, spansOf("a", some(1)...))
	f.Add(append([]byte{0, 0, 0, 0, byte(len(good))}, good...), false)
	f.Add(append([]byte{1, 0, 0, 0, 3}, 1, 2, 3), true)
	f.Fuzz(func(t *testing.T, b []byte, compressed bool) {
		var sink taken
		r := New(sink.take, Options{MaxBody: 64 << 10})
		req := httptest.NewRequest(http.MethodPost, grpcMethod, bytes.NewReader(b))
		req.ProtoMajor = 2
		req.Header.Set("Content-Type", typeGRPC)
		if compressed {
			req.Header.Set("Grpc-Encoding", "gzip")
		}
		w := httptest.NewRecorder()
		r.serve(w, req.WithContext(r.server.ConnContext(t.Context(), nowhere{})))
		status := w.Header().Get("Grpc-Status") + w.Header().Get(http.TrailerPrefix+"Grpc-Status")
		if w.Code != 200 || status == "" || (status == "0") != (w.Body.Len() > 0) {
			t.Fatal(w.Code, status, w.Body.Len())
		}
		if free := r.room.Free(); free != r.opts.RoomBytes {
			t.Fatalf("%d bytes are free", free)
		}
	})
}

// nowhere is a connection of nobody.
type nowhere struct{ net.Conn }

func (nowhere) RemoteAddr() net.Addr { return &net.TCPAddr{} }
