// Package state is what the processes around one sandbox leave for each other in files:
// the sandbox's state beside the relay's socket and in containers' bundles, and where the
// relay's own files are; and what they read of what containerd leaves, a bundle's
// annotations.
//
// Whatever it touches may hang with its file system, and be put there by somebody else:
// Within bounds what hangs, no link is followed, and what is read is bounded. It makes no
// spans and starts nothing. It is used by the commands (package shim), the relay and what
// makes their spans.
package state
