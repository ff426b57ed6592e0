// Package guard keeps pods alive whose relay dies. One process of the host, the guard,
// holds a copy of each relay's descriptors and shared memory; a relay that ends without
// saying so, or hangs, is followed by another process that gets all of them and goes
// on. The guard also accepts at the host's VSOCK port and hands each connection,
// unread, to the relay that claimed its CID.
//
// [Run] is the guard. [Client] is a relay's link to it: it never blocks and never fails
// the relay; without a guard, a relay works as if there were none. [Inherit] is for the
// process that follows a relay. [Ask] is for the operator's tool. What they say to each
// other is in message.go.
//
// The guard reads no byte of a connection and knows nothing of ttrpc, traces or what
// lies in the memory. Package shim has relays registered, and says what a successor
// does.
package guard
