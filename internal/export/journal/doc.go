// Package journal keeps spans on disk. It is the only way for shimtrace's processes on
// a host to hand spans on.
//
// Relays append to it, and the processes that record for the short-lived shim commands
// ([Journal]); the shipper follows it ([Follower]) and the operator's tool reads it
// ([Scan]). The package knows nothing of networks. It is linked into the relay, of which
// every pod has a process, so it stays small.
//
// # Layout
//
// A journal is a directory (mode 0700) of segments "<number>.seg" (mode 0600; decimal,
// 20 digits). All processes append to the segment with the highest number. Each append
// holds a file lock (flock(2)) for that one write. When a segment has reached its size,
// the next number follows and the segment is never written again: the existence of
// segment N+1 seals segment N. The first number is the Unix time in milliseconds, so
// that numbers rise even when somebody empties the directory. When all segments
// together exceed a cap, the oldest are removed. Records of sandboxes within their
// share are then appended again, so that one sandbox's flood costs no other sandbox its
// spans.
//
// When a stopped process holds the lock for too long, the next segment is begun, for
// everyone: no process waits for another.
//
// # Format, version 1
//
// Integers are little-endian. A segment begins with a header of 32 bytes:
//
//	 0  magic "shimtrj" and the version, 1
//	 8  marker: 8 random bytes
//	16  time of creation, Unix nanoseconds (int64)
//	24  0 (uint32)
//	28  CRC-32C of bytes 0 to 28 (uint32)
//
// Records follow each other, each with a header of 32 bytes:
//
//	 0  marker: the segment's
//	 8  time of the append, Unix nanoseconds (int64)
//	16  kind (uint8), then the source (3 bytes): whose share it counts against, a
//	    hash of the sandbox's id; 0: the host
//	20  number of spans (uint32)
//	24  length of the payload (uint32), at most 1 MiB
//	28  CRC-32C of bytes 0 to 28 and the payload (uint32)
//	32  payload
//
// Kinds: 1, traces: the payload is an OTLP TracesData message. 2, drops: a JSON object
// from reason to the number of spans lost for it. 3, carried: the same, summed from
// removed segments. 4, posted: a TracesData message by other programs of the host. 5, worth:
// no payload; the spans of its source are worth more than others'. 6, kept: as 1, for a source
// that is worth more, once the record has been shipped or kept out. Unknown kinds are skipped.
// Kind 128 and more: the same, moved when a segment was removed, and before the payload the
// names of the targets that had it before: their length in bytes (uint16), and each with a 0
// behind it.
//
// # Damage
//
// A reader that finds no valid record searches for the next marker with a valid
// checksum and counts the bytes it skips. One damaged byte costs at most one record.
// The marker is random because payloads hold what guests sent: a guest that cannot know
// it cannot forge a record inside one. A damaged segment header costs nothing, since
// the first record repeats the marker.
//
// # Durability
//
// A record that an append has reported as written survives the death of any process. It
// is not synced to the disk: a crash of the host may lose the last seconds and leave a
// torn end, which readers skip. Syncing would add the disk's latency to every
// container's start.
package journal
