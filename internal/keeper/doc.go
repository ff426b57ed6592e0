// Package keeper sees to it that one process of the host does a thing that all of
// it needs: started detached by whoever notices that it is not there, elected by the
// lock on a file, started again when it dies, and killed and replaced when it hangs: it
// answers pings for that ([Answer]). One that waits for a processor is not taken for one
// that hangs.
//
// It does not know what the thing is. The relays have the operator's tool collect so
// (package export), and a guard; what is left to these processes they take over with
// [Inherited], or through [Answer] while they run. [Keeper.Guard] is for who only ends
// what hangs.
package keeper
