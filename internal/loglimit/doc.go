// Package loglimit bounds a log that others can fill: guests, local users, backends.
// Each cause gets one line a minute, which says how many were left out.
//
// Handler does this for a slog.Logger; other writers use a Limiter. A Reporter is for what
// is tried again and again.
package loglimit
