package journal

import (
	"encoding/json"
	"fmt"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Record is one append, as a reader sees it.
type Record struct {
	// Time is when the record was appended, by the writer's clock.
	Time time.Time
	Kind Kind
	// Kept: the record stays for those who read the journal here. It has been shipped, or
	// kept out, before.
	Kept bool
	// Source is whose share the record counts against.
	Source Source
	// Spans is the number of spans in a record of traces, or the number lost
	// in one of KindDrops or KindCarried.
	Spans int
	// Payload is valid until the callback returns or the next record is read.
	Payload []byte
	// Segment and Offset are where the record begins.
	Segment uint64
	Offset  int64
	// Moved: it was in another segment before, which was removed.
	Moved bool
	// Taken are the targets that had the record before it was moved here.
	Taken []string

	names int // length of Taken in the record
}

// End is the offset behind the record.
func (r Record) End() int64 { return r.Offset + int64(recordHeaderLen+r.names+len(r.Payload)) }

// Traces decodes the payload of a record of traces.
func (r Record) Traces() (*tracepb.TracesData, error) {
	if !r.Kind.Traces() {
		return nil, fmt.Errorf("journal: record %d:%d is of kind %d, not traces", r.Segment, r.Offset, r.Kind)
	}
	t := new(tracepb.TracesData)
	if err := proto.Unmarshal(r.Payload, t); err != nil {
		return nil, fmt.Errorf("journal: record %d:%d: %w", r.Segment, r.Offset, err)
	}
	return t, nil
}

// Drops decodes the payload of a record of KindDrops or KindCarried: how many
// spans were lost, by reason.
func (r Record) Drops() (map[string]int, error) {
	if r.Kind != KindDrops && r.Kind != KindCarried {
		return nil, fmt.Errorf("journal: record %d:%d is of kind %d, not drops", r.Segment, r.Offset, r.Kind)
	}
	var d map[string]int
	if err := json.Unmarshal(r.Payload, &d); err != nil {
		return nil, fmt.Errorf("journal: record %d:%d: drops: %w", r.Segment, r.Offset, err)
	}
	return d, nil
}
