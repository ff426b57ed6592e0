package middleware

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// forwardAnswers forwards from server to client until the server ends. Nothing is
// put into answers: the bytes pass as they arrive, and are looked at afterwards.
func (c *conn) forwardAnswers(rd *handover.Stream) error {
	answers := resumeAnswers(rd.Mark())
	if err := c.finishAnswers(rd, answers); err != nil {
		return err
	}
	for {
		if err := c.forwardAnswer(rd, answers); err != nil {
			return err
		}
	}
}

// forwardAnswer forwards what comes next.
func (c *conn) forwardAnswer(rd *handover.Stream, answers *answerReader) error {
	chunk, err := rd.Next()
	if len(chunk) > 0 {
		at := time.Now()
		if err := markWrite(rd.Write(len(chunk), chunk)); err != nil {
			return err
		}
		c.forwarded(rd, chunk, answers, at)
	}
	if err != nil && answers.within() {
		return unexpected(err)
	}
	return err
}

// forwarded takes a chunk that was forwarded, and ends the calls whose answers it
// completes.
func (c *conn) forwarded(rd *handover.Stream, chunk []byte, answers *answerReader, at time.Time) {
	answers.feed(chunk, func(h wire.Header, payload []byte) {
		if !c.panics.off() {
			c.guard(func() { c.answered(h, payload, answers.blind, at) })
		}
	})
	rd.Discard(len(chunk), answers.mark())
}

// answered ends the call that a frame from the server answers; it is blind if the answer's
// beginning passed before this process took over. A second answer, or one to nothing, is
// none of the relay's business.
func (c *conn) answered(h wire.Header, payload []byte, blind bool, at time.Time) {
	// A stream that goes well ends with a data frame.
	lastData := h.Type == wire.TypeData && h.Flags&wire.FlagRemoteClosed != 0
	if h.Type != wire.TypeResponse && !lastData {
		return
	}
	call := c.calls.take(h.Stream)
	if call == nil {
		return
	}
	defer c.calls.told(h.Stream)
	if blind {
		c.abandon(lost{call, at, errResumed})
		return
	}
	call.ended(at)
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
