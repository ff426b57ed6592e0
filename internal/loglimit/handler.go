package loglimit

import (
	"context"
	"log/slog"
	"strings"
)

// swallowedKey says how many lines of the same cause were left out before this one.
const swallowedKey = "swallowed"

// maxText bounds an attribute's text, in bytes. The stack of a panic fits.
const maxText = 4 << 10

// Handler returns a handler that passes to next what its Limiter allows. A record's
// kind is its message, its cause its attributes. Debug records always pass.
func Handler(next slog.Handler) slog.Handler { return &handler{Handler: next, limiter: &Limiter{}} }

type handler struct {
	slog.Handler
	limiter *Limiter
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return h.Handler.Handle(ctx, r)
	}
	var attrs []slog.Attr
	var text strings.Builder
	r.Attrs(func(a slog.Attr) bool {
		value := a.Value.Resolve().String()
		if len(value) > maxText {
			a.Value = slog.StringValue(value[:maxText] + "…")
		}
		text.WriteString(value[:min(len(value), maxText)])
		text.WriteByte(' ')
		attrs = append(attrs, a)
		return true
	})
	swallowed, ok := h.limiter.Allow(r.Message, text.String())
	if !ok {
		return nil
	}
	line := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	line.AddAttrs(attrs...)
	if swallowed > 0 {
		line.AddAttrs(slog.Uint64(swallowedKey, swallowed))
	}
	return h.Handler.Handle(ctx, line)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.limiter}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.limiter}
}
