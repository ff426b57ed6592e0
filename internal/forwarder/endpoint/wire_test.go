package endpoint

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Bodies made by hand, field by field.

type field []byte

func header(is byte, id int) field { return field{is, byte(id >> 8), byte(id)} }

func text(id int, s string) field {
	return append(binary.BigEndian.AppendUint32(header(11, id), uint32(len(s))), s...)
}
func long(id int, v int64) field {
	return binary.BigEndian.AppendUint64(header(10, id), uint64(v))
}
func number(id int, v int32) field {
	return binary.BigEndian.AppendUint32(header(8, id), uint32(v))
}
func boolean(id int, v bool) field {
	if v {
		return append(header(2, id), 1)
	}
	return append(header(2, id), 0)
}
func double(id int, v float64) field {
	return binary.BigEndian.AppendUint64(header(4, id), math.Float64bits(v))
}
func structure(fields ...field) field { return append(bytes.Join(toBytes(fields), nil), 0) }
func object(id int, fields ...field) field {
	return append(header(12, id), structure(fields...)...)
}
func list(id int, structs ...field) field { return listOf(id, 12, len(structs), structs...) }
func listOf(id int, of byte, n int, values ...field) field {
	b := append(header(15, id), of)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	return append(b, bytes.Join(toBytes(values), nil)...)
}
func toBytes(fields []field) (b [][]byte) {
	for _, f := range fields {
		b = append(b, f)
	}
	return b
}

func stringTag(key, v string) field { return structure(text(1, key), number(2, isString), text(3, v)) }
func boolTag(key string, v bool) field {
	return structure(text(1, key), number(2, isBool), boolean(5, v))
}
func longTag(key string, v int64) field {
	return structure(text(1, key), number(2, isLong), long(6, v))
}
func doubleTag(key string, v float64) field {
	return structure(text(1, key), number(2, isDouble), double(4, v))
}
func binaryTag(key, v string) field { return structure(text(1, key), number(2, isBinary), text(7, v)) }

// plainSpan has the required fields, and those given.
func plainSpan(name string, more ...field) field {
	return structure(append([]field{long(1, 1), long(2, 0), long(3, 3), long(4, 0), text(5, name), number(7, 1), long(8, 1_000_000), long(9, 5)}, more...)...)
}

func batch(service string, spans ...field) []byte {
	return structure(object(1, text(1, service)), list(2, spans...))
}
