package doctor

import (
	"context"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// TestWatch: what is found again is not told again; what has changed is.
func TestWatch(t *testing.T) {
	p := newPlace(t)
	o := Options{Root: p.root, Proc: host.Proc("/proc"), Getenv: func(k string) string { return p.env[k] }, Tool: self(t)}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	told := make(map[Finding]int)
	broken := false
	err := Watch(ctx, time.Millisecond, o, func(f Finding) error {
		told[f]++
		switch {
		case f.Level == Error:
			stop()
		case !broken:
			broken = true
			p.remove("usr/local/bin/containerd-shim-traced-v2")
		}
		return nil
	})
	if err != nil || ctx.Err() == context.DeadlineExceeded {
		t.Fatal(err, ctx.Err())
	}
	for f, n := range told {
		if n != 1 {
			t.Errorf("told %d times: %+v", n, f)
		}
	}
}
