package endpoint

import (
	"bytes"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// traits are what a span's tags say besides being attributes. Byte slices are slices of
// the body.
type traits struct {
	name        []byte
	kind        []byte
	pkg         []byte // the Go runtime's package
	file, crate []byte // where in runtime-rs's source
	request     []byte // the request that runtime-rs serves
	sandbox     []byte
	container   []byte
	failed, ok  bool
	message     []byte
}

// take notes what a tag says. It reports whether OTLP has a field for it, so that it
// makes no attribute.
func (t *traits) take(g tag) bool {
	switch string(g.key) {
	case "span.kind":
		t.kind = g.str
		return g.is == isString
	case "error":
		switch {
		case g.is == isBool:
			t.failed = t.failed || g.bool
		case g.is == isString && (string(g.str) == "true" || string(g.str) == "false"):
			t.failed = t.failed || string(g.str) == "true"
		default:
			return false
		}
		return true
	case "otel.status_code": // a word, or in the Go exporter Go's number for it
		t.failed = t.failed || g.is == isString && string(g.str) == "ERROR" || g.is == isLong && g.long == 1
		t.ok = t.ok || g.is == isString && string(g.str) == "OK" || g.is == isLong && g.long == 2
		return true
	case "otel.status_description":
		t.message = g.str
		return g.is == isString
	case "otel.library.name", "otel.library.version", "otel.scope.name", "otel.scope.version":
		return true // the scope says it
	case "package":
		t.pkg = g.str
	case "code.filepath", "code.file.path": // the older and the newer convention
		t.file = g.str
	case "code.namespace", "code.module.name":
		t.crate = g.str
	case "req":
		t.request = g.str
	case "sandbox_id":
		t.sandbox = g.str
	case "container_id":
		t.container = g.str
	}
	return false
}

var kinds = map[string]tracepb.Span_SpanKind{
	"client":   tracepb.Span_SPAN_KIND_CLIENT,
	"server":   tracepb.Span_SPAN_KIND_SERVER,
	"producer": tracepb.Span_SPAN_KIND_PRODUCER,
	"consumer": tracepb.Span_SPAN_KIND_CONSUMER,
}

// finish sets what the traits say on the current span, and ends it.
func (d *decoder) finish(s *span.Span, t *traits) {
	b := d.builder
	b.Name(d.text(t.name))
	if kind, ok := kinds[string(t.kind)]; ok {
		s.Kind = kind
	}
	switch {
	case t.failed:
		message, size := d.text(t.message)
		b.Status(tracepb.Status_STATUS_CODE_ERROR, message, size)
	case t.ok:
		b.Status(tracepb.Status_STATUS_CODE_OK, nil, 0)
	}
	req := parseRequest(t.request)
	s.Sandbox = b.ID(t.sandbox)
	if s.Sandbox == "" {
		s.Sandbox = b.ID(req.sandbox)
	}
	if req.container != nil {
		b.Process(req.container, req.exec)
	} else {
		b.Process(t.container, nil)
	}
	s.Method = method(t, req)
	b.End()
}

// exporter reports whether the span is of runtime-rs's exporter itself: it runs under
// the subscriber that it serves, so its HTTP/2 makes seven of ten spans. Their source
// is a crate that is not in Kata's own tree.
func (t *traits) exporter() bool {
	crate, _, _ := bytes.Cut(t.crate, []byte("::"))
	switch string(crate) {
	case "h2", "hyper", "hyper_util", "tower", "tonic", "tokio", "tokio_util", "want":
		return true
	}
	below := func(dir string) bool {
		return bytes.HasPrefix(t.file, []byte(dir[1:])) || bytes.Contains(t.file, []byte(dir))
	}
	return below("/registry/src/") || below("/git/checkouts/") || below("/vendor/") // as cargo has them
}
