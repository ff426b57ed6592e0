// Package collect is the process of a host that has the network code: it ships the
// journals to their collectors, and receives the spans of Kata's own runtimes for the
// relays. Relays start it and see to it by package keeper; there is one per host, which
// a lock in the directory of package route says.
//
// A runtime waits with each span for the answer to its post. So nothing here waits for
// a disk, a collector, a relay or whoever reads what is said before it answers, and
// who keeps the process ends it when it does not answer.
//
// It does not decode spans (package endpoint), does not know whose they are (package
// route), and knows neither collectors' answers (package otlp) nor the journal's
// format.
package collect
