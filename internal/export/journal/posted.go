package journal

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
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
	for rest := b; len(rest) > 0; {
		field, n := next(rest)
		if field != path[0] {
			head = append(head, rest[:n]...)
		}
		rest = rest[n:]
	}
	part := head[:len(head):len(head)]
	end := func() {
		if len(part) > len(head) {
			parts = append(parts, part)
		}
		part = head[:len(head):len(head)]
	}
	for rest := b; len(rest) > 0; {
		field, n := next(rest)
		element := rest[:n]
		rest = rest[n:]
		if field != path[0] {
			continue
		}
		if len(part)+len(element) > size {
			end()
		}
		if len(head)+len(element) <= size || len(path) == 1 {
			part = append(part, element...)
			continue
		}
		_, _, tag := protowire.ConsumeTag(element)
		inner, _ := protowire.ConsumeBytes(element[tag:])
		// The head and length that each part gets take some bytes.
		for _, p := range cut(inner, size-len(head)-maxHead, path[1:]) {
			part = otlpwire.AppendBytes(part, field, p)
			end()
		}
	}
	end()
	return parts
}

// maxHead is the longest head of a length-delimited field in bytes.
const maxHead = 1 + 5

// next returns the number of a message's first field that has a length, 0 for any other,
// and the field's whole length: all that is left if the message is malformed.
func next(b []byte) (protowire.Number, int) {
	field, wire, head := protowire.ConsumeTag(b)
	n := protowire.ConsumeFieldValue(field, wire, b[max(head, 0):])
	switch {
	case head < 0 || n < 0:
		return 0, len(b)
	case wire != protowire.BytesType:
		return 0, head + n
	}
	return field, head + n
}

// countElements returns how many elements are at the end of the path.
func countElements(b []byte, path []protowire.Number) (total int) {
	for len(b) > 0 {
		field, n := next(b)
		if field == path[0] {
			if len(path) == 1 {
				total++
			} else {
				_, _, tag := protowire.ConsumeTag(b)
				inner, _ := protowire.ConsumeBytes(b[tag:n])
				total += countElements(inner, path[1:])
			}
		}
		b = b[n:]
	}
	return total
}
