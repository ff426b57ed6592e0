package client

import (
	"encoding/json"
	"fmt"
	"html"
	"mime"
	"net/http"
	"regexp"
	"strings"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// These functions read the bodies of OTLP's answers as its specification has them (1.9,
// "OTLP/HTTP Response"), and as servers send them with other headers: Grafana Mimir
// answers errors in protobuf as application/octet-stream and successes, like Fluent
// Bit, with nothing at all. So the body decides, not its declared type.

// mediaType returns the header's media type without parameters, in lower case.
func mediaType(h http.Header) string {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil && kind == "" {
		kind, _, _ = strings.Cut(strings.ToLower(h.Get("Content-Type")), ";")
	}
	return strings.TrimSpace(kind)
}

// isProtobuf and isJSON report whether a media type declares that encoding.
func isProtobuf(kind string) bool {
	return strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "protobuf")
}

func isJSON(kind string) bool {
	return kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
}

// successOf returns the answer to an export, and whether the body is one.
func successOf(kind string, body []byte) (*coltracepb.ExportTraceServiceResponse, bool) {
	msg := new(coltracepb.ExportTraceServiceResponse)
	if len(body) == 0 {
		// An empty body is the message without fields. Web servers that answer nothing
		// declare a type all the same.
		return msg, kind == "" || isProtobuf(kind) || isJSON(kind)
	}
	if kind == "text/html" {
		return nil, false
	}
	if fields, ok := object(body); ok {
		known := len(fields["partialSuccess"])+len(fields["partial_success"]) > 0
		if len(fields) > 0 && !known {
			return nil, false // another program's JSON
		}
		return msg, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, msg) == nil
	}
	if proto.Unmarshal(body, msg) != nil {
		return nil, false
	}
	// Later versions may have more fields. They are accepted only if the type declares
	// protobuf.
	return msg, isProtobuf(kind) || msg.PartialSuccess != nil && len(msg.ProtoReflect().GetUnknown()) == 0
}

// failureOf returns the status in a failure, and whether the body is one.
func failureOf(kind string, body []byte) (*spb.Status, bool) {
	msg := new(spb.Status)
	if len(body) == 0 {
		return msg, isProtobuf(kind)
	}
	if kind == "text/html" {
		return nil, false
	}
	if fields, ok := object(body); ok {
		// Many programs' JSON has a message. With a gRPC code beside it, it is OTLP's.
		var code codes.Code
		if json.Unmarshal(fields["code"], &code) != nil || code == codes.OK || code > codes.Unauthenticated {
			return nil, false
		}
		msg.Code = int32(code)
		return msg, json.Unmarshal(fields["message"], &msg.Message) == nil || fields["message"] == nil
	}
	if proto.Unmarshal(body, msg) != nil || len(msg.ProtoReflect().GetUnknown()) > 0 {
		return nil, false
	}
	code := codes.Code(msg.GetCode())
	return msg, code <= codes.Unauthenticated && (msg.GetMessage() != "" || code != codes.OK)
}

// object returns the fields of a JSON object.
func object(body []byte) (fields map[string]json.RawMessage, ok bool) {
	return fields, json.Unmarshal(body, &fields) == nil && fields != nil
}

var title = regexp.MustCompile(`(?is)<title[^>]*>(.{0,200}?)</title>`)

// describe says what a body is that is not OTLP, and how it begins.
func describe(kind string, body []byte) (what, begin string) {
	text := strings.TrimSpace(string(body[:min(len(body), 16<<10)]))
	switch {
	case text == "":
		return "no body", ""
	case kind == "text/html" || strings.HasPrefix(strings.ToLower(text), "<!doctype html") || strings.HasPrefix(strings.ToLower(text), "<html"):
		if m := title.FindStringSubmatch(text); m != nil {
			return "a web page", html.UnescapeString(m[1])
		}
		return "a web page", ""
	case isJSON(kind) || text[0] == '{' || text[0] == '[':
		return "JSON that is no OTLP", text
	case strings.HasPrefix(kind, "text/"):
		return "text", text
	case kind == "":
		return "something of no type", ""
	}
	return fmt.Sprintf("something of type %.60s", kind), ""
}
