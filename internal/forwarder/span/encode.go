package span

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// seal turns what was appended since at into a length-delimited field.
func seal(b []byte, at int, field protowire.Number) []byte {
	var room [15]byte
	head := otlpwire.AppendHead(room[:0], field, len(b)-at)
	end := len(b)
	b = append(b, head...)
	copy(b[at+len(head):], b[at:end])
	copy(b[at:], head)
	return b
}

// appendAttribute appends a KeyValue with the key key+suffix as the given field.
func appendAttribute[K string | []byte](b []byte, field protowire.Number, key K, suffix string, v Value) []byte {
	keySize, valueSize := len(key)+len(suffix), v.wireSize()
	b = otlpwire.AppendHead(b, field, otlpwire.FieldLen(keySize)+otlpwire.FieldLen(valueSize))
	b = otlpwire.AppendHead(b, otlpwire.KeyValueKey, keySize)
	b = append(b, key...)
	b = append(b, suffix...)
	return v.append(otlpwire.AppendHead(b, otlpwire.KeyValueValue, valueSize))
}
