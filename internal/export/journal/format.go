package journal

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

const (
	segmentHeaderLen = 32
	recordHeaderLen  = 32

	magic = "shimtrj\x01"

	// maxPayload is the longest payload that a reader accepts. No writer has ever made
	// a longer record.
	maxPayload = maxRecord + maxTaken
)

// Kind says what a record's payload is.
type Kind uint8

const (
	// KindTraces is an OTLP TracesData message.
	KindTraces Kind = 1
	// KindDrops counts spans that were lost, by reason.
	KindDrops Kind = 2
	// KindCarried repeats the counts of drops records that were removed with
	// their segments, so that totals outlive the cap.
	KindCarried Kind = 3
	// KindPosted is an OTLP TracesData message that other programs of the host have
	// posted. Resources and scopes in it are theirs, and say nothing about who made it.
	KindPosted Kind = 4
	// KindWorth has no payload: the spans of its source are worth more than others'. It
	// is for those who remove segments; Scan passes over it.
	KindWorth Kind = 5
	// KindKept is what KindTraces is, for a sandbox whose spans are worth more, once shippers
	// are done with the record. Readers get it as KindTraces, with Record.Kept set.
	KindKept Kind = 6
)

// Traces reports whether the payload is a TracesData message, whoever made it.
func (k Kind) Traces() bool { return k == KindTraces || k == KindPosted }

type marker [8]byte

// castagnoli returns the table, which is made when it is first needed: that takes a sixth of a
// millisecond, for which the start of a process need not wait.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func appendSegmentHeader(b []byte, m marker, created time.Time) []byte {
	start := len(b)
	b = append(b, magic...)
	b = append(b, m[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(created.UnixNano()))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli()))
}

// created returns when a segment was begun, in Unix nanoseconds, from its intact header.
func created(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b[16:])) }

// parseSegmentHeader returns the marker, and whether the header is intact.
func parseSegmentHeader(b []byte) (m marker, ok bool) {
	if len(b) < segmentHeaderLen || string(b[:len(magic)]) != magic ||
		binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli()) {
		return m, false
	}
	copy(m[:], b[8:])
	return m, true
}

type recordHeader struct {
	time   int64
	kind   Kind
	moved  bool // the payload begins with the targets that have the record
	source Source
	spans  uint32
	length uint32
	crc    uint32
}

// putRecordHeader fills the header of the record b, whose payload is in place.
func putRecordHeader(b []byte, m marker, e entry) {
	copy(b, m[:])
	binary.LittleEndian.PutUint64(b[8:], uint64(e.time.UnixNano()))
	binary.LittleEndian.PutUint32(b[16:], uint32(e.kind)|uint32(e.source)<<8)
	binary.LittleEndian.PutUint32(b[20:], uint32(e.spans))
	binary.LittleEndian.PutUint32(b[24:], uint32(len(b)-recordHeaderLen))
	binary.LittleEndian.PutUint32(b[28:], recordChecksum(b))
}

func parseRecordHeader(b []byte) recordHeader {
	return recordHeader{
		time:   int64(binary.LittleEndian.Uint64(b[8:])),
		kind:   Kind(b[16]) &^ moved,
		moved:  Kind(b[16])&moved != 0,
		source: Source(binary.LittleEndian.Uint32(b[16:]) >> 8),
		spans:  binary.LittleEndian.Uint32(b[20:]),
		length: binary.LittleEndian.Uint32(b[24:]),
		crc:    binary.LittleEndian.Uint32(b[28:]),
	}
}

// recordChecksum is the checksum of a whole record, header and payload.
func recordChecksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:28], castagnoli()), castagnoli(), b[recordHeaderLen:])
}
