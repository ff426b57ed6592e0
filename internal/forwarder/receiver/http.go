package receiver

import (
	"mime"
	"net/http"
	"strings"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// httpPath is the URL path that spans are posted to over HTTP.
const httpPath = "/v1/traces"

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
	typeGRPC     = "application/grpc"
)

// serve answers one request.
func (r *Receiver) serve(w http.ResponseWriter, req *http.Request) {
	is, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type"))
	switch {
	case req.ProtoMajor == 2 && (is == typeGRPC || strings.HasPrefix(is, typeGRPC+"+")):
		r.serveGRPC(w, req)
	case post.Is(w, req, httpPath, "takes spans in OTLP, and nothing else, at POST "+httpPath+" and over gRPC"):
		r.serveHTTP(w, req, is)
	}
}

func (r *Receiver) serveHTTP(w http.ResponseWriter, req *http.Request, contentType string) {
	is := asProtobuf
	if contentType == typeJSON {
		is = asJSON
	}
	rejected, refused := r.read(req, contentType, is)
	if refused == nil {
		answer(w, is, http.StatusOK, response(rejected))
		return
	}
	r.refuse(refused)
	if again(refused) {
		w.Header().Set("Retry-After", "1")
	}
	answer(w, is, refused.Status, &rpcstatus.Status{Code: int32(grpcCode(refused)), Message: refused.Text})
}

// read reads and takes a post over HTTP.
func (r *Receiver) read(req *http.Request, contentType string, is format) (rejected int, refused *post.Refusal) {
	from := connectionOf(req)
	switch {
	case contentType != typeProtobuf && contentType != typeJSON:
		return 0, &post.Refusal{Reason: losses.RefusedPost, Status: http.StatusUnsupportedMediaType,
			Text: "the content type is neither " + typeProtobuf + " nor " + typeJSON}
	case !from.pace.left():
		return 0, errTooFast
	}
	body, refused := post.Reader{Room: r.room, Max: r.maxBody(is)}.Body(req)
	if refused != nil {
		return 0, refused
	}
	return r.take(from, body, is)
}

// maxBody returns the length of the longest post.
func (r *Receiver) maxBody(is format) int {
	if is == asJSON {
		return r.opts.MaxBody / 4
	}
	return r.opts.MaxBody
}

// response returns the answer to a post that was taken, with the number of its spans
// that were rejected.
func response(rejected int) *collectorpb.ExportTraceServiceResponse {
	if rejected == 0 {
		return new(collectorpb.ExportTraceServiceResponse)
	}
	return &collectorpb.ExportTraceServiceResponse{PartialSuccess: &collectorpb.ExportTracePartialSuccess{
		RejectedSpans: int64(rejected), ErrorMessage: "invalid spans",
	}}
}

func answer(w http.ResponseWriter, is format, status int, m proto.Message) {
	var body []byte
	var err error
	if is == asJSON {
		w.Header().Set("Content-Type", typeJSON)
		body, err = protojson.Marshal(m)
	} else {
		w.Header().Set("Content-Type", typeProtobuf)
		body, err = proto.Marshal(m)
	}
	if err != nil { // impossible: our own texts are valid
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
