package interpose

import (
	"bytes"
	"fmt"
)

// meaning says what a line has turned out to be.
type meaning int

const (
	unfinished meaning = iota // it may become the awaited line
	awaited                   // it is the awaited line
	other                     // it cannot be the awaited line
)

// line recognises a line that arrives in parts, without delaying it.
type line struct {
	fits func(begun []byte) bool // reports whether the beginning may become the awaited line
	max  int                     // in bytes, newline included
	got  []byte
}

// feed takes a part and returns how many of its bytes belong to the line.
func (l *line) feed(part []byte) (n int, m meaning) {
	n = len(part)
	end := bytes.IndexByte(part, '\n')
	if end >= 0 {
		n = end + 1
	}
	if len(l.got)+n > l.max {
		return n, other
	}
	l.got = append(l.got, part[:n]...)
	switch {
	case !l.fits(l.got):
		return n, other
	case end >= 0:
		return n, awaited
	}
	return n, unfinished
}

// request is the line that asks for a port, as Kata's Go runtime writes it
// (src/runtime/virtcontainers/pkg/agent/protocols/client) and as runtime-rs does
// (src/runtime-rs/crates/agent/src/sock/hybrid_vsock.rs).
func request(port uint32) *line {
	upper, lower := fmt.Appendf(nil, "CONNECT %d\n", port), fmt.Appendf(nil, "connect %d\n", port)
	return &line{max: len(upper), fits: func(begun []byte) bool {
		return bytes.HasPrefix(upper, begun) || bytes.HasPrefix(lower, begun)
	}}
}

// consent is the line with which a VMM agrees to connect the port: OK and the port on
// its own side.
func consent() *line {
	const ok = "OK "
	return &line{max: len(ok + "4294967295\n"), fits: func(begun []byte) bool {
		if len(begun) <= len(ok) {
			return string(begun) == ok[:len(begun)]
		}
		number := bytes.TrimSuffix(begun[len(ok):], []byte("\n"))
		for _, b := range number {
			if b < '0' || b > '9' {
				return false
			}
		}
		return string(begun[:len(ok)]) == ok && (len(number) > 0 || begun[len(begun)-1] != '\n')
	}}
}
