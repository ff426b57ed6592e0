// Package handover keeps a relayed connection so that another process can go on with it
// at the byte: what was read and not yet written lies in memory that outlives the
// process, together with an exact account of both.
//
// A [Stream] is one direction of a connection, read and written by one goroutine. It is
// a buffer of the bytes that were read and not taken yet ([Stream.Peek],
// [Stream.Next], [Stream.Discard]), with a way out ([Stream.Write]). [NewStream] has its
// bytes on the heap and reads and writes any net.Conn; nothing of it can be handed
// over. The streams of a [Memory] have theirs in a memfd, whose descriptor another
// process holds a copy of.
//
// # The account
//
// Bytes are read with recvmmsg and written with sendmmsg, one message at a time, because
// these store the number of bytes in the header of the message (net/socket.c, do_recvmmsg
// and __sys_sendmmsg), which lies in the memory. They do so inside the system call, and a
// process is killed only at its end. So there is no instruction at which bytes have been
// taken and are not in the account. The position before those bytes shares a word with
// their number, and both are stored at once. So only one more thing has to be atomic: which
// of two steps is the current one. A step says where in the stream its writer is, what it
// is writing, and how many of the bytes that were read this stands for.
//
// The kernel could fail to store the number if the page were swapped out between two
// accesses of the same system call while the process is being killed.
//
// Nothing in the memory is a pointer that is followed: what is being written is kept as
// offsets, and [Open] believes none before it has compared it with the bounds.
package handover
