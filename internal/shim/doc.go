// Package shim keeps the contract between containerd and a runtime v2 shim on
// behalf of a real one, the inner shim: it runs the inner shim's commands, and
// puts a relay between containerd and the inner shim's socket.
//
// Everything here obeys one rule: what is ours may fail, what is the inner shim's
// may not be changed by that. Where tracing cannot be set up, containerd is given
// the inner shim itself.
//
// The package knows containerd's command line, its bundle directory and the
// addresses that shims answer with; of ttrpc it knows what package middleware
// tells it. Its only caller is cmd/containerd-shim-traced-v2.
package shim
