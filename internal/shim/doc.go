// Package shim keeps the contract between containerd and a runtime v2 shim on
// behalf of a real one, the inner shim: it runs the inner shim's commands, and
// puts a relay between containerd and the inner shim's socket.
//
// Everything here obeys one rule: what is ours may fail, what is the inner shim's
// may not be changed by that. Where tracing cannot be set up, containerd is given
// the inner shim itself.
//
// The package knows containerd's command line, its bundle directory and the addresses that
// shims answer with. The relay is in package relay, and what it does for Kata in package
// kata. What a command would have in the trace is recorded by another process, for which
// nobody waits. containerd waits for all that this package does, so it links nothing that
// only those packages need, and gives the relay its sockets instead of waiting for it to
// make them. Its only caller is cmd/containerd-shim-traced-v2.
package shim
