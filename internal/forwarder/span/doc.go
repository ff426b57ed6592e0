// Package span models a span that was made elsewhere: by the agent in a VM (decoded by package
// agent) or by Kata's own runtime (decoded by package endpoint).
//
// A [Span] has fields for what determines its place in a trace, and OTLP bytes for all else,
// made once by a [Builder]. Agents print whole requests, containers' environments included. So
// the Builder keeps an attribute's value only if its key is on a list, whoever made the span;
// any other becomes its length in bytes (<key>.size).
//
// The package decides nothing about traces and does no I/O.
package span
