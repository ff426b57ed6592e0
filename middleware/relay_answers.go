package middleware

import (
	"time"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// largeBuffer is the size of the buffer for a server that has much to say.
const largeBuffer = 64 << 10

// forwardAnswers forwards from server to client until the server ends. Nothing is
// put into answers: the bytes pass as they arrive, and are looked at afterwards.
func (c *conn) forwardAnswers() error {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(small)
	to := writer{c.client}
	buf := small[:]
	var answers answerReader
	for {
		n, err := c.server.Read(buf)
		at := time.Now()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			if !c.panics.off() {
				answers.feed(buf[:n], func(h wire.Header, payload []byte) {
					c.guard(func() { c.answered(h, payload, at) })
				})
			}
		}
		if err != nil {
			return err
		}
		switch {
		case n == len(buf) && len(buf) == smallBuffer:
			buf = make([]byte, largeBuffer)
		case n < smallBuffer/2:
			buf = small[:]
		}
	}
}

// answered ends the call that a frame from the server answers. A second answer,
// or one to nothing, is none of the relay's business.
func (c *conn) answered(h wire.Header, payload []byte, at time.Time) {
	if h.Type == wire.TypeData {
		c.calls.stream(h.Stream)
		return
	}
	if h.Type != wire.TypeResponse {
		return
	}
	call := c.calls.take(h.Stream)
	if call == nil {
		return
	}
	var resp wire.Response
	resp.Scan(payload)
	call.End = at
	call.Code = Code(resp.Code)
	if call.Code == 0 {
		call.method.readAnswer(call, resp.Payload)
	} else {
		call.setMessage(resp.Message)
	}
	c.end(call)
}
