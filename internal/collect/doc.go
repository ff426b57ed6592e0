// Package collect is the host's one process with network code: it ships the journals to
// their collectors, and receives the spans of Kata's runtimes for the relays. Relays
// start it and watch it through package keeper. A lock in the directory that it shares
// with relays makes sure that there is one.
//
// A runtime waits, with each span, for the answer to its post. So no answer waits for a
// disk, a collector, a relay or the reader of our output, and a keeper replaces the
// process when it does not answer.
//
// It does not decode spans (package endpoint), does not know whose they are (package
// route), and knows neither collectors' answers (package otlp) nor the journal's format.
package collect
