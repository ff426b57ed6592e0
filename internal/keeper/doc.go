// Package keeper sees to it that one process of the host does a thing that all of
// it needs: the operator's tool, started detached by whoever notices that it is not
// there, elected by the lock on a file, started again when it dies, and killed and
// replaced when it hangs: it answers pings for that ([Answer]).
//
// It does not know what the thing is. The relays call it, to have the journal
// shipped (package export) and the runtimes' endpoint open (package shim); the
// processes that it starts take over what it leaves to them with [Inherited].
package keeper
