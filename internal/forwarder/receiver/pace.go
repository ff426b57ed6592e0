package receiver

import (
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// pace bounds the bytes that arrive in the long run, and so the processor time that
// they take and the disk that they are written to. A post is read while anything is
// left, and charged afterwards, since its program need not say how long it is.
type pace struct {
	limiter *rate.Limiter
	whole   *pace // nil for the whole itself
}

const (
	// burstTime is how much may come at once, as a time.
	burstTime = 2
	// connectionPart is the part of the whole that one connection may have.
	connectionPart = 4
	// leastCharge is the least that a post is charged, in bytes: reading any post takes
	// as long as checking this many.
	leastCharge = 4 << 10
	// jsonCharge is how many times as long a byte of JSON takes.
	jsonCharge = 8
)

func (f format) charge() int {
	if f == asJSON {
		return jsonCharge
	}
	return 1
}

func newPace(bytesPerSecond, least int) *pace {
	return &pace{limiter: rate.NewLimiter(rate.Limit(bytesPerSecond), max(burstTime*bytesPerSecond, least))}
}

// part returns the pace of one connection.
func (p *pace) part() *pace {
	return &pace{limiter: rate.NewLimiter(p.limiter.Limit()/connectionPart, p.limiter.Burst()/connectionPart), whole: p}
}

// left reports whether a post may be read.
func (p *pace) left() bool {
	now := time.Now()
	for ; p != nil; p = p.whole {
		if p.limiter.TokensAt(now) <= 0 {
			return false
		}
	}
	return true
}

// spend charges for a post that was read.
func (p *pace) spend(bytes int) {
	now := time.Now()
	for ; p != nil; p = p.whole {
		p.limiter.ReserveN(now, min(bytes, p.limiter.Burst()))
	}
}

// errTooFast refuses a post that came too soon.
var errTooFast = &post.Refusal{Reason: losses.ByteRate, Status: http.StatusTooManyRequests, Text: "more spans arrive than bytes_per_second of [otlp] allows, try again later"}
