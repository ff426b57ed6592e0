package middleware

import (
	"errors"
	"io"
	"time"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// forwardAnswers forwards from server to client until the server ends. Nothing is
// put into answers: the bytes pass as they arrive, and are looked at afterwards.
func (c *conn) forwardAnswers() error {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(small)
	var large *[largeBuffer]byte
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
	}()
	buf := small[:]
	to := writer{c.client}
	var answers answerReader
	for {
		n, err := c.server.Read(buf)
		if n > 0 {
			if err := c.forwardAnswer(buf[:n], to, &answers); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && answers.within():
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case large == nil && n == smallBuffer:
			large = largeBuffers.Get().(*[largeBuffer]byte)
			buf = large[:]
		case large != nil && n < smallBuffer:
			largeBuffers.Put(large)
			large, buf = nil, small[:]
		}
	}
}

// forwardAnswer forwards a chunk, and ends the calls whose answers it completes.
func (c *conn) forwardAnswer(chunk []byte, to writer, answers *answerReader) error {
	at := time.Now()
	if _, err := to.Write(chunk); err != nil {
		return err
	}
	if !c.panics.off() {
		answers.feed(chunk, func(h wire.Header, payload []byte) {
			c.guard(func() { c.answered(h, payload, at) })
		})
	}
	return nil
}

// answered ends the call that a frame from the server answers. A second answer,
// or one to nothing, is none of the relay's business.
func (c *conn) answered(h wire.Header, payload []byte, at time.Time) {
	// A stream that goes well ends with a data frame.
	lastData := h.Type == wire.TypeData && h.Flags&wire.FlagRemoteClosed != 0
	if h.Type != wire.TypeResponse && !lastData {
		return
	}
	call := c.calls.take(h.Stream)
	if call == nil {
		return
	}
	call.End = at
	if !lastData {
		var resp wire.Response
		resp.Scan(payload)
		call.Code = Code(resp.Code)
		if call.Code == 0 {
			call.method.readAnswer(call, resp.Payload)
		} else {
			call.setMessage(resp.Message)
		}
	}
	c.end(call)
}
