package post

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Reader reads bodies.
type Reader struct {
	Room *Room
	// Max is the longest body in bytes, after inflating.
	Max int
}

// Body reads and inflates a request's body. Its capacity is reserved in the Room, and
// the caller releases it.
func (r Reader) Body(req *http.Request) ([]byte, *Refusal) {
	body, refused := r.body(req)
	if refused != nil && refused.Reason == losses.OversizedPost && req.Header.Get("Expect") == "" {
		// Read on, twice as far as a body may be long: a client whose connection is closed
		// while it sends may not see the answer, and would send the same again. One that waits
		// to be told to send does see it.
		_, _ = io.CopyN(io.Discard, req.Body, 2*int64(r.Max))
	}
	return body, refused
}

func (r Reader) body(req *http.Request) ([]byte, *Refusal) {
	if req.ContentLength > int64(r.Max) {
		return nil, r.oversized()
	}
	switch req.Header.Get("Content-Encoding") {
	case "", "identity":
		return r.Read(req.Body, int(req.ContentLength))
	case "gzip":
		return r.Inflate(req.Body)
	}
	return nil, &Refusal{losses.RefusedPost, http.StatusUnsupportedMediaType, "the content encoding is not gzip"}
}

// Inflate is Read for a body that is compressed by gzip.
func (r Reader) Inflate(from io.Reader) ([]byte, *Refusal) {
	if !r.Room.Reserve(inflating) {
		return nil, ErrBusy
	}
	defer r.Room.Release(inflating)
	z, err := gzip.NewReader(from)
	if err != nil {
		return nil, unreadable(err)
	}
	defer z.Close()
	return r.Read(z, -1)
}

func (r Reader) oversized() *Refusal {
	return &Refusal{losses.OversizedPost, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", r.Max)}
}

// unreadable explains why a body could not be read.
func unreadable(err error) *Refusal {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &Refusal{losses.CutShortPost, http.StatusRequestTimeout, "the body did not arrive in time"}
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return &Refusal{losses.MalformedPost, http.StatusBadRequest, "the body is not gzip, which it is said to be"}
	}
	return &Refusal{losses.CutShortPost, http.StatusBadRequest, "the body ended early: " + err.Error()}
}

const (
	// firstRead is the most memory that an announced length gets at once, in bytes.
	// After that, memory grows with what arrives.
	firstRead = 32 << 10
	leastRead = 512
	// inflating is what decompression takes beside the body, in bytes.
	inflating = 48 << 10
)

// Read reads a body of the announced length, -1 if none was announced. Its capacity is
// reserved as Body's is.
func (r Reader) Read(from io.Reader, announced int) (_ []byte, refused *Refusal) {
	size := leastRead
	if announced >= 0 {
		size = announced + 1 // so that the end is seen without growing
	}
	size = min(size, firstRead)
	if !r.Room.Reserve(size) {
		return nil, ErrBusy
	}
	buf := make([]byte, 0, size)
	defer func() {
		if refused != nil {
			r.Room.Release(cap(buf))
		}
	}()
	for {
		if len(buf) > r.Max {
			return nil, r.oversized()
		}
		if len(buf) == cap(buf) {
			size := min(2*cap(buf), r.Max+1)
			if !r.Room.Reserve(size - cap(buf)) {
				return nil, ErrBusy
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
