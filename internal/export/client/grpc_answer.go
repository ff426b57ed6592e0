package client

import (
	"strings"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// grpcAnswer is what came back for an upload by gRPC.
type grpcAnswer struct {
	status *status.Status
	partly *coltracepb.ExportTracePartialSuccess // of what a server has taken
	spoken bool                                  // the status is from a gRPC server; otherwise from the client
}

// newGRPCAnswer tells from the headers where the status is from.
func newGRPCAnswer(err error, partly *coltracepb.ExportTracePartialSuccess, header, trailer metadata.MD) *grpcAnswer {
	return &grpcAnswer{
		status: status.Convert(err),
		partly: partly,
		// grpc-go keeps the type only if it is gRPC's (http2_client.go, operateHeaders).
		spoken: err == nil || len(header["content-type"]) > 0 || len(trailer["content-type"]) > 0,
	}
}

// judge follows OTLP's specification (1.9, "OTLP/gRPC Response"), with the same
// exceptions as for HTTP.
func (a *grpcAnswer) judge(where address, spans int) verdict {
	if a.status.Code() == codes.OK {
		return taken(where, a.partly, spans)
	}
	if !a.spoken {
		return verdict{err: a.unspoken(where)}
	}
	code, message := a.status.Code(), a.status.Message()
	v := verdict{otlp: true, compression: decompressor(message)}
	err := where.says("answers "+code.String()+a.advice(where), where.excerpt(message))
	switch code {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.OutOfRange:
		if tooLarge(message) {
			v.err = refused(losses.CollectorTooLarge, err)
			return v
		}
	}
	switch code {
	case codes.InvalidArgument:
		v.err = refused(losses.CollectorRefused, err)
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled, codes.OutOfRange, codes.DataLoss, codes.ResourceExhausted:
		v.err = busy(retryDelay(a.status), err)
	case codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
		v.otlp = false // another kind of server, or a proxy
		v.err = doubtful(losses.CollectorFails, err)
	default:
		v.err = doubtful(losses.CollectorFails, err)
	}
	return v
}

// unspoken explains a status that no gRPC server has sent.
func (a *grpcAnswer) unspoken(where address) error {
	const unexpected = "unexpected HTTP status code received from server: "
	message := a.status.Message()
	if _, rest, ok := strings.Cut(message, unexpected); ok {
		code, _, _ := strings.Cut(rest, ";")
		err := where.says("answers "+where.excerpt(code)+" by HTTP, which is no gRPC; is this a web server? OTLP over gRPC is at port 4317 as a rule, and for port 4318 "+where.target.Keys("protocol")+" is to be \"http/protobuf\""+where.throughProxy(), "")
		switch {
		case a.status.Code() == codes.Unavailable: // 429, 502, 503, 504
			return err
		case strings.HasPrefix(rest, "413"):
			return doubtful(losses.CollectorTooLarge, err)
		}
		return doubtful(losses.CollectorFails, err)
	}
	return where.unanswered(a.status.Err())
}

func (a *grpcAnswer) advice(where address) string {
	switch a.status.Code() {
	case codes.Unimplemented:
		if where.signal == metrics {
			return noMetrics
		}
		return ", so it speaks gRPC, but takes no OTLP traces here"
	case codes.Unauthenticated, codes.PermissionDenied:
		return where.credential()
	}
	return ""
}

// tooLarge reports whether a message is about a size limit. It knows the words of
// gRPC's libraries in Go, C++, Python, Ruby and Node ("larger than max"), Java
// ("exceeds maximum size"), .NET ("exceeds the maximum configured message size"),
// Rust's tonic ("message length too large"), and of Go's net/http in the OpenTelemetry
// Collector ("request body too large").
func tooLarge(message string) bool {
	message = strings.ToLower(message[:min(len(message), 4<<10)])
	for _, words := range []string{
		"larger than max", "exceeds maximum size", "exceeds the maximum", "exceeds maximum",
		"length too large", "body too large", "message too large", "payload too large", "entity too large", "request too large",
	} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}

// decompressor reports whether a message is about compression: gRPC's libraries in Go
// ("Decompressor is not installed for grpc-encoding"), Java ("Can't find decompressor
// for gzip"), .NET ("Unsupported grpc-encoding value"), C++ ("compression algorithm …
// is disabled"), Rust ("Content is compressed with `gzip` which isn't supported").
func decompressor(message string) bool {
	message = strings.ToLower(message[:min(len(message), 4<<10)])
	return strings.Contains(message, "compress") || strings.Contains(message, "grpc-encoding") || strings.Contains(message, "gzip")
}

func retryDelay(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
