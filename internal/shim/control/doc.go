// Package control is how the operator's tool talks to relays: which there are, what
// they trace, and that they are to switch it on or off.
//
// A relay that can be switched listens on a socket beside the one that it relays. A
// connection is one request and one answer, each a JSON object; both say which
// version of this they are. Whoever can connect may ask for anything: the socket is
// its owner's only, and the relay checks who connects.
//
// The package decides nothing. The relay (package shim) serves, cmd/shimtrace asks.
package control
