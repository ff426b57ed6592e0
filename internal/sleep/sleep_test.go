package sleep_test

import (
	"context"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/sleep"
)

func TestFor(t *testing.T) {
	if !sleep.For(t.Context(), time.Millisecond) {
		t.Error("nothing ended it, and it says so")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if sleep.For(ctx, time.Hour) {
		t.Error("an hour has passed")
	}
}
