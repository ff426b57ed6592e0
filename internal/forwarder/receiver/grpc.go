package receiver

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// grpcMethod is the path of OTLP's method for spans
// (opentelemetry/proto/collector/trace/v1/trace_service.proto).
const grpcMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

// grpcHead is the length of what precedes a message: whether it is compressed, and its
// length (grpc/doc/PROTOCOL-HTTP2.md).
const grpcHead = 1 + 4

// serveGRPC answers a call.
func (r *Receiver) serveGRPC(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", typeGRPC)
	if req.URL.Path != grpcMethod || req.Method != http.MethodPost {
		end(w, w.Header(), codes.Unimplemented, "shimtrace takes spans, and nothing else")
		return
	}
	rejected, refused := r.readGRPC(req)
	if refused != nil {
		r.refuse(refused)
		end(w, w.Header(), grpcCode(refused), refused.Text)
		return
	}
	message, err := proto.Marshal(response(rejected))
	if err != nil { // impossible: our own texts are valid
		end(w, w.Header(), codes.Internal, "")
		return
	}
	head := make([]byte, grpcHead, grpcHead+len(message))
	binary.BigEndian.PutUint32(head[1:], uint32(len(message)))
	if _, err := w.Write(append(head, message...)); err == nil {
		end(w, trailers{w.Header()}, codes.OK, "")
	}
}

// setter is where a status goes: into the headers of an answer without a message, or
// into the trailers.
type setter interface{ Set(key, value string) }

type trailers struct{ http.Header }

func (t trailers) Set(key, value string) { t.Header.Set(http.TrailerPrefix+key, value) }

func end(w http.ResponseWriter, to setter, code codes.Code, message string) {
	to.Set("Grpc-Status", strconv.Itoa(int(code)))
	if message != "" {
		to.Set("Grpc-Message", percent(message))
	}
	if code != codes.OK {
		w.WriteHeader(http.StatusOK)
	}
}

// percent encodes a message as gRPC demands.
func percent(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// grpcCode returns gRPC's code for a refusal. Exporters repeat a call that ends with
// Unavailable, and no call that ends with another of these codes.
func grpcCode(r *post.Refusal) codes.Code {
	switch r.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return codes.Unavailable
	case http.StatusRequestEntityTooLarge:
		return codes.ResourceExhausted
	case http.StatusUnsupportedMediaType:
		return codes.Unimplemented
	case http.StatusRequestTimeout:
		return codes.DeadlineExceeded
	}
	return codes.InvalidArgument
}

// readGRPC reads and takes the only message of a call.
func (r *Receiver) readGRPC(req *http.Request) (rejected int, refused *post.Refusal) {
	from := connectionOf(req)
	if !from.pace.left() {
		return 0, errTooFast
	}
	var head [grpcHead]byte
	if _, err := io.ReadFull(req.Body, head[:]); err != nil {
		return 0, &post.Refusal{Reason: losses.CutShortPost, Status: http.StatusBadRequest, Text: "the message did not arrive"}
	}
	length := int64(binary.BigEndian.Uint32(head[1:]))
	if length > int64(r.opts.MaxBody) {
		return 0, &post.Refusal{Reason: losses.OversizedPost, Status: http.StatusRequestEntityTooLarge,
			Text: fmt.Sprintf("the message is longer than %d bytes", r.opts.MaxBody)}
	}
	message := &io.LimitedReader{R: req.Body, N: length}
	reader := post.Reader{Room: r.room, Max: r.opts.MaxBody}
	var body []byte
	switch compressed := head[0] != 0; {
	case !compressed:
		body, refused = reader.Read(message, int(length))
	case req.Header.Get("Grpc-Encoding") == "gzip":
		body, refused = reader.Inflate(message)
	default:
		return 0, &post.Refusal{Reason: losses.RefusedPost, Status: http.StatusUnsupportedMediaType, Text: "the message's encoding is not gzip"}
	}
	if refused != nil {
		return 0, refused
	}
	if _, err := req.Body.Read(head[:1]); message.N > 0 || err != io.EOF {
		r.room.Release(cap(body))
		return 0, &post.Refusal{Reason: losses.CutShortPost, Status: http.StatusBadRequest, Text: "the call has not exactly one message"}
	}
	return r.take(from, body, asProtobuf)
}
