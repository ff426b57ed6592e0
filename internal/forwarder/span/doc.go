// Package span is the one model of a span that was made elsewhere: by the agent in a
// VM (package agent decodes it) or by Kata's own runtime (package jaeger).
//
// A [Span] has in fields what gives it its place in a trace, and what it will be sent
// as in all else: OTLP bytes, made once by a [Builder]. By the Builder attributes pass
// by list, whoever made them: agents print whole requests, containers' environments
// included, so an attribute that is not on the list becomes its length in bytes
// (<key>.size). A [Batch] makes what a journal's record holds of spans.
//
// The package decides nothing about traces and does no I/O.
package span
