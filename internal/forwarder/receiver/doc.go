// Package receiver is the whole way of agents' spans through one process: it reads
// the connections that it is given (package forwarder), gives each VM's spans
// their place (package collate), ticks what waits, hands what comes of it to an
// OTLP client, and tells what was lost.
//
// It opens no sockets, starts nothing by itself, and knows no configuration: what
// the spans of a VM are called and where they belong, its caller says. Its callers
// are the relay, for which one sandbox is its own, and the standalone forwarder,
// to which all are alike.
package receiver
