// Package keeper keeps one process of the host running for all who need it. Whoever
// notices that it is missing starts it, detached; a file's lock makes sure that there is
// one. It is started again when it dies, and killed and replaced when it hangs, that is,
// when it does not answer pings ([Answer]). A process that merely waits for a processor
// is not taken to hang.
//
// It does not know what the process does. In this way the relays keep the operator's tool
// running (package export), and a guard. These processes take over files with [Inherited],
// or through [Answer] while they run. [Keeper.Guard] is for a keeper that only ends what
// hangs.
package keeper
