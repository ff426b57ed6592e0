// Package loglimit keeps a log short that others can fill: guests, local users,
// backends. Of each cause there is one line a minute, which says how many there were
// in between.
//
// Handler does that for a slog.Logger; who writes lines otherwise asks a Limiter.
package loglimit
