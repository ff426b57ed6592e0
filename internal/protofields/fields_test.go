package protofields_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/protofields"
)

// message has a field of each type.
func message() []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "short")
	b = protowire.AppendBytes(protowire.AppendTag(b, 2000, protowire.BytesType), make([]byte, 300))
	b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), 1<<40)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 4, protowire.Fixed64Type), 1<<60)
	b = protowire.AppendFixed32(protowire.AppendTag(b, 5, protowire.Fixed32Type), 1<<30)
	b = protowire.AppendGroup(protowire.AppendTag(b, 6, protowire.StartGroupType), 6, []byte{8, 1})
	return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), "last")
}

func TestFields(t *testing.T) {
	type seen struct {
		number protowire.Number
		typ    protowire.Type
		value  uint64
		length int
	}
	want := []seen{
		{1, protowire.BytesType, 0, 5}, {2000, protowire.BytesType, 0, 300}, {3, protowire.VarintType, 1 << 40, 0},
		{4, protowire.Fixed64Type, 1 << 60, 0}, {5, protowire.Fixed32Type, 1 << 30, 0}, {6, protowire.StartGroupType, 0, 0},
		{1, protowire.BytesType, 0, 4},
	}
	f := protofields.Of(message())
	for i := 0; f.Next(); i++ {
		if got := (seen{f.Number, f.Type, f.Value, len(f.Bytes)}); i >= len(want) || got != want[i] {
			t.Errorf("field %d is %v", i, got)
		}
	}
	if err := f.Err(); err != nil || f.End != len(message()) {
		t.Errorf("it ended at %d with %v", f.End, err)
	}
	if last := protofields.Last(message(), 1); string(last) != "last" {
		t.Errorf("the last field 1 is %q", last)
	}
}

func TestCut(t *testing.T) {
	b := protowire.AppendString(protowire.AppendTag([]byte{16, 1}, 1, protowire.BytesType), "a text")
	f := protofields.Of(b[:len(b)-2])
	for f.Next() {
	}
	if f.Err() == nil || f.Err().Error() != "field 1 at byte 2: unexpected EOF" {
		t.Errorf("it ended with %v", f.Err())
	}
	if !f.Cut() || !f.Is(1) || string(f.Bytes) != "a te" {
		t.Errorf("of field 1 there is %q", f.Bytes)
	}
	if f.Next() || f.Cut() {
		t.Error("there is more")
	}
	for _, whole := range [][]byte{nil, b, b[:2], {8}, {10}, {10, 0x80}, {0, 1}} {
		f := protofields.Of(whole)
		for f.Next() {
		}
		if f.Cut() {
			t.Errorf("%x is taken for cut off", whole)
		}
	}
}

// FuzzFields holds the fields of any bytes to protowire's reading.
func FuzzFields(f *testing.F) {
	f.Add(message())
	f.Add(message()[:10])
	f.Fuzz(func(t *testing.T, b []byte) {
		rest := b
		got := protofields.Of(b)
		for got.Next() {
			number, typ, n := protowire.ConsumeField(rest)
			if n < 0 || number != got.Number || typ != got.Type || !bytes.Equal(rest[:n], got.Whole()) {
				t.Fatalf("%x: field %d of type %d, %x; protowire has %d of type %d, %d bytes", b, got.Number, got.Type, got.Whole(), number, typ, n)
			}
			if _, _, head := protowire.ConsumeTag(rest); typ == protowire.BytesType {
				if v, _ := protowire.ConsumeBytes(rest[head:]); !bytes.Equal(v, got.Bytes) {
					t.Fatalf("%x: %x in place of %x", b, got.Bytes, v)
				}
			}
			rest = rest[n:]
		}
		if number, _, n := protowire.ConsumeField(rest); got.Err() == nil && len(rest) > 0 || got.Err() != nil && n >= 0 && number <= protowire.MaxValidNumber {
			t.Fatalf("%x: it ended with %v before %x", b, got.Err(), rest)
		}
		if got.Cut() && got.End != len(b) {
			t.Fatalf("%x: what is cut off ends at %d", b, got.End)
		}
	})
}
