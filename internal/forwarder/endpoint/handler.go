package endpoint

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"os"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Path is the URL path that runtimes post to.
const Path = "/api/traces"

// serve answers one request. It answers 202, as Jaeger does, once the body has arrived;
// decoding comes later. Exporters take any 2xx for success, and drop the spans otherwise.
func (e *Endpoint) serve(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.URL.Path != Path:
		http.Error(w, "This is shimtrace, which takes the spans of Kata's runtimes, and nothing else, at POST "+Path+".", http.StatusNotFound)
		return
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Spans are posted here. shimtrace show shows them.", http.StatusMethodNotAllowed)
		return
	}
	body, r := e.body(req)
	if r == nil {
		peer, _ := req.Context().Value(peerKey{}).(netip.AddrPort)
		if e.queue.put(post{peer, body}) {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		e.queue.release(cap(body))
		r = errBusy
	}
	e.lose(r.reason, fmt.Errorf("take a runtime's spans: %w", r))
	http.Error(w, r.Error(), r.status)
}

// refusal says why a request is not taken.
type refusal struct {
	reason losses.Reason
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

var errBusy = &refusal{losses.BusyPost, http.StatusServiceUnavailable, "more spans wait to be decoded than there is room for"}

// body reads and inflates a request's body. Its capacity is reserved in the queue.
func (e *Endpoint) body(req *http.Request) ([]byte, *refusal) {
	switch is, _, _ := mime.ParseMediaType(req.Header.Get("Content-Type")); is {
	case "application/x-thrift", "application/vnd.apache.thrift.binary":
	default:
		return nil, &refusal{losses.RefusedPost, http.StatusUnsupportedMediaType,
			"the content type is neither application/x-thrift nor application/vnd.apache.thrift.binary"}
	}
	if req.ContentLength > int64(e.opts.MaxBody) {
		return nil, e.oversized()
	}
	from, announced := io.Reader(req.Body), int(req.ContentLength)
	switch req.Header.Get("Content-Encoding") {
	case "", "identity":
	case "gzip":
		if !e.queue.reserve(inflating) {
			return nil, errBusy
		}
		defer e.queue.release(inflating)
		z, err := gzip.NewReader(from)
		if err != nil {
			return nil, unreadable(err)
		}
		defer z.Close()
		from, announced = z, -1
	default:
		return nil, &refusal{losses.RefusedPost, http.StatusUnsupportedMediaType, "the content encoding is not gzip"}
	}
	return e.read(from, announced)
}

func (e *Endpoint) oversized() *refusal {
	return &refusal{losses.OversizedPost, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", e.opts.MaxBody)}
}

// unreadable explains why a body could not be read.
func unreadable(err error) *refusal {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{losses.CutShortPost, http.StatusRequestTimeout, "the body did not arrive in time"}
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return &refusal{losses.MalformedPost, http.StatusBadRequest, "the body is not gzip, which it is said to be"}
	}
	return &refusal{losses.CutShortPost, http.StatusBadRequest, "the body ended early: " + err.Error()}
}

const (
	// firstRead is the most memory that an announced length gets at once, in bytes.
	// After that, memory grows with what arrives.
	firstRead = 32 << 10
	leastRead = 512
	// inflating is what decompression takes beside the body, in bytes.
	inflating = 48 << 10
)

// read reads a body of the announced length, -1 if none was announced.
func (e *Endpoint) read(from io.Reader, announced int) (_ []byte, refused *refusal) {
	size := leastRead
	if announced >= 0 {
		size = announced + 1 // so that the end is seen without growing
	}
	size = min(size, firstRead)
	if !e.queue.reserve(size) {
		return nil, errBusy
	}
	buf := make([]byte, 0, size)
	defer func() {
		if refused != nil {
			e.queue.release(cap(buf))
		}
	}()
	for {
		if len(buf) > e.opts.MaxBody {
			return nil, e.oversized()
		}
		if len(buf) == cap(buf) {
			size := min(2*cap(buf), e.opts.MaxBody+1)
			if !e.queue.reserve(size - cap(buf)) {
				return nil, errBusy
			}
			grown := make([]byte, len(buf), size)
			copy(grown, buf)
			buf = grown
		}
		n, err := from.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, unreadable(err)
		}
	}
}
