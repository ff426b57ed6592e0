package endpoint

import (
	"fmt"
	"mime"
	"net/http"
	"net/netip"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Path is the URL path that runtimes post to.
const Path = "/api/traces"

// serve answers one request. It answers 202, as Jaeger does, once the body has arrived;
// decoding comes later. Exporters take any 2xx for success, and drop the spans otherwise.
func (e *Endpoint) serve(w http.ResponseWriter, req *http.Request) {
	if !post.Is(w, req, Path, "takes the spans of Kata's runtimes, and nothing else, at POST "+Path) {
		return
	}
	body, r := e.body(req)
	if r == nil {
		peer, _ := req.Context().Value(peerKey{}).(netip.AddrPort)
		if e.queue.put(answered{peer, body}) {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		e.queue.room.Release(cap(body))
		r = post.ErrBusy
	}
	e.lose(r.Reason, fmt.Errorf("take a runtime's spans: %w", r))
	http.Error(w, r.Error(), r.Status)
}

// body reads a request's body. Its capacity is reserved in the queue.
func (e *Endpoint) body(req *http.Request) ([]byte, *post.Refusal) {
	switch is, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type")); is {
	case "application/x-thrift", "application/vnd.apache.thrift.binary":
	default:
		return nil, &post.Refusal{Reason: losses.RefusedPost, Status: http.StatusUnsupportedMediaType,
			Text: "the content type is neither application/x-thrift nor application/vnd.apache.thrift.binary"}
	}
	return post.Reader{Room: e.queue.room, Max: e.opts.MaxBody}.Body(req)
}
