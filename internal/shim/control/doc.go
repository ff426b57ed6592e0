// Package control is how the operator's tool talks to relays: which there are, what
// they trace, and that they are to switch it on or off.
//
// Each relay listens on a socket beside the one that it relays; older ones only if they can
// be switched. A connection is one request and one answer, each a JSON object; both say
// which version of this they are. Whoever can connect may ask for anything: the socket is
// its owner's only, and the relay checks who connects.
//
// The package decides nothing. The relay (package shim) serves, cmd/shimtrace asks.
package control
