package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/export/ship"
)

// caused is an error whose text changes from attempt to attempt.
type caused struct{ n int }

func (c caused) Error() string { return fmt.Sprintf("a web server answers: request %d", c.n) }
func (caused) Cause() string   { return "a web server answers" }

// TestShipSaysEachCauseOnce: a log that nobody reads must not grow with the attempts.
func TestShipSaysEachCauseOnce(t *testing.T) {
	var out bytes.Buffer
	p := &shipProgress{h: &host{stderr: &out}}
	refused := &ship.RejectedError{Reason: "refused", Spans: 1, Err: errors.New("bad span")}
	for n := range 100 {
		p.update(ship.Status{Err: caused{n}})
		p.update(ship.Status{}) // as an attempt begins, for one
	}
	p.update(ship.Status{Shipped: 1, Notice: refused})
	p.update(ship.Status{Shipped: 2, Notice: refused})
	p.update(ship.Status{Shipped: 2, Notice: refused, Err: caused{101}})
	text := out.String()
	if n := strings.Count(text, "a web server answers"); n != 1 {
		t.Errorf("said %d times:\n%s", n, text)
	}
	if n := strings.Count(text, "bad span"); n != 1 {
		t.Errorf("notice %d times:\n%s", n, text)
	}
	for n := range 2 * maxSaid {
		p.update(ship.Status{Notice: fmt.Errorf("notice %d", n)})
	}
	if n := strings.Count(out.String(), "\n"); n > maxSaid+2 {
		t.Errorf("%d lines", n)
	}
}
