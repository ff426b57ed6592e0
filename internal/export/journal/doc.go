// Package journal keeps spans on disk: the one way by which every process of
// shimtrace on a host hands spans on.
//
// Relays and the short-lived shim commands append to it ([Journal], which is an
// [otlptrace.Client]); the shipper follows it ([Follower]) and the operator's
// tool reads it ([Scan]). The package knows nothing of networks: it is linked in
// the shim, of which one runs per pod, and so it stays small.
//
// # Layout
//
// A journal is a directory (mode 0700) of segments "<number>.seg" (mode 0600;
// decimal, 20 digits). All processes append to the segment with the highest
// number, each append under a file lock (flock(2)) that is held for that one
// write. A segment that has reached its size is followed by the next number, and
// never written again: the existence of segment N+1 seals segment N. The first
// number is the Unix time in milliseconds, so that numbers rise even when
// somebody empties the directory. The oldest segments are removed when all of
// them together exceed a cap; records of sandboxes that have no more than their
// share go on to the end then, so that one sandbox's flood costs no other one.
//
// When the lock cannot be had in a short time, because a stopped process holds
// it, the next segment is begun, for all: no process waits for another.
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
// Kinds: 1, traces: the payload is an OTLP TracesData message. 2, drops: a JSON
// object from reason to the number of spans lost for it. 3, carried: the same,
// summed up from segments that were removed. Unknown kinds are skipped.
//
// # Damage
//
// A reader that finds no valid record searches for the next marker with a valid
// checksum; what it passes over is counted, and one damaged byte costs at most
// one record. The marker is random because payloads hold what guests sent: a
// guest that cannot know it cannot forge a record inside one. A damaged segment
// header costs nothing, since the first record repeats the marker.
//
// # Durability
//
// A record that an append has reported as written survives the death of any
// process. It is not synced to the disk: a crash of the host may take the last
// seconds with it, and leave a torn end, which readers pass over. Syncing would
// put the disk's latency beside every container's start.
package journal
