// Package collect is the host's one process with network code: it ships the journals to
// their collectors, receives the spans of Kata's runtimes for the relays, and those of
// other programs of the host for the journal. Relays start it and watch it through
// package keeper. A lock in the directory that it shares with relays makes sure that
// there is only one.
//
// A runtime waits, with each span, for the answer to its post. So no answer waits for a
// disk, a collector, a relay or the reader of our output, and a keeper replaces the
// process when it does not answer.
//
// Other programs' exporters wait for the journal, and are told to try again if it does
// not take their spans within a second.
//
// It does not decode spans (packages endpoint, receiver), does not know whose they are
// (package route), and knows neither backends' answers (package client) nor the
// journal's format.
package collect
