package journal

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// Posted is a part of what programs of the host have posted.
type Posted struct {
	// Data is a valid TracesData message, Spans how many spans it has.
	Data  []byte
	Spans int
}

// AppendPosted appends what programs of one share have posted, in as few records as
// possible. It returns how many of the parts are in the journal; an error is about the
// next one. Their owner has the rest, so these do not count as lost, except for single
// spans that exceed a record. AppendPosted keeps no part of them.
func (j *Journal) AppendPosted(source Source, all []Posted) (done int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return 0, errClosed
	}
	for done < len(all) {
		n, size, spans := 0, 0, 0
		for _, p := range all[done:] {
			if n > 0 && size+len(p.Data) > j.maxPayload() {
				break
			}
			n, size, spans = n+1, size+len(p.Data), spans+p.Spans
		}
		if size > j.maxPayload() {
			err = j.appendParts(source, all[done])
		} else {
			// Concatenated messages are one message with all of their elements.
			payload := j.room(size)
			for _, p := range all[done : done+n] {
				payload = append(payload, p.Data...)
			}
			err = j.append(KindPosted, source, spans, payload)
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, j.flush()
}

// appendParts appends a message that is too large for a record.
func (j *Journal) appendParts(source Source, p Posted) error {
	for _, part := range cut(p.Data, j.maxPayload(), tracesPath) {
		spans := countElements(part, tracesPath)
		if len(part) > j.maxPayload() {
			j.losses.Of(losses.Posted).Add(losses.TooLarge, spans)
			continue
		}
		if err := j.append(KindPosted, source, spans, append(j.room(len(part)), part...)); err != nil {
			return err
		}
	}
	return nil
}

// tracesPath are the repeated fields that lead to the spans in a TracesData message.
var tracesPath = []protowire.Number{otlpwire.DataResourceSpans, otlpwire.ResourceSpansScopes, otlpwire.ScopeSpansSpans}

// cut divides a message into several of at most size bytes, each with all of its fields
// but for the elements of the repeated field that path begins with, which are divided
// further along the path. A part is longer than size if a single element is.
func cut(b []byte, size int, path []protowire.Number) (parts [][]byte) {
	var head []byte // all other fields
	for f := protofields.Of(b); f.Next(); {
		if !f.Is(path[0]) {
			head = append(head, f.Whole()...)
		}
	}
	part := head[:len(head):len(head)]
	end := func() {
		if len(part) > len(head) {
			parts = append(parts, part)
		}
		part = head[:len(head):len(head)]
	}
	for f := protofields.Of(b); f.Next(); {
		if !f.Is(path[0]) {
			continue
		}
		element := f.Whole()
		if len(part)+len(element) > size {
			end()
		}
		if len(head)+len(element) <= size || len(path) == 1 {
			part = append(part, element...)
			continue
		}
		// The head and length that each part gets take some bytes.
		for _, p := range cut(f.Bytes, size-len(head)-maxHead, path[1:]) {
			part = otlpwire.AppendBytes(part, f.Number, p)
			end()
		}
	}
	end()
	return parts
}

// maxHead is the longest head of a length-delimited field in bytes.
const maxHead = 1 + 5

// countElements returns how many elements are at the end of the path.
func countElements(b []byte, path []protowire.Number) (total int) {
	for f := protofields.Of(b); f.Next(); {
		switch {
		case !f.Is(path[0]):
		case len(path) == 1:
			total++
		default:
			total += countElements(f.Bytes, path[1:])
		}
	}
	return total
}
