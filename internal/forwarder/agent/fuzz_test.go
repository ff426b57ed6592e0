package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
)

// seeds adds the golden payloads that are small enough to mutate.
func seeds(f *testing.F, names ...string) {
	for _, name := range names {
		for _, p := range payloads(f, testdata(f, name+".frames")) {
			if len(p) < 16<<10 {
				f.Add(p)
			}
		}
	}
}

func FuzzBincode(f *testing.F) {
	seeds(f, goldenBin)
	fuzzDecode(f, Bincode)
}

func FuzzJSON(f *testing.F) {
	seeds(f, goldenJSON)
	f.Add([]byte(jsonSpan(`"new":[{"a":"\"\\"},1.5e3,null],"links":{"queue":[{}]},"name":"\ud83e"`)))
	f.Add([]byte(jsonSpan(strings.Repeat(`"attributes":{"map":{"a":{"I64":1},"b":{"I64":1},"c":{"I64":1}}},"events":{"queue":[{},{}]},`, 3) + `"name":"n"`)))
	f.Add(sortedJSON(payloads(f, testdata(f, goldenJSON+".frames"))[1]))
	fuzzDecode(f, JSON)
}

// fuzzDecode: any input gives an error, or OTLP within the limits that holds only what may
// leave the VM.
func fuzzDecode(f *testing.F, encoding Encoding) {
	opts := Options{Options: span.Options{MaxValue: 64, MaxAttributes: 8, MaxEvents: 3, MaxLinks: 3, MaxCost: 8 << 10}, Counters: &Counters{Losses: new(losses.Tally)}}
	d := NewDecoder(opts)
	f.Fuzz(func(t *testing.T, payload []byte) {
		if EncodingOf(payload) != encoding {
			return
		}
		var s span.Span
		before := bytes.Clone(payload)
		err := d.Decode(payload, &s)
		if !bytes.Equal(payload, before) {
			t.Fatal("the payload was changed")
		}
		if err != nil {
			var pe *payloadError
			if !errors.As(err, &pe) || pe.Offset < 0 || pe.Offset > len(payload) || pe.Encoding != encoding {
				t.Fatal(err)
			}
			return
		}
		b := s.AppendOTLP(nil)
		if len(b) > 5*len(payload)+256 {
			t.Fatalf("%d bytes became %d", len(payload), len(b))
		}
		if texts := 3*opts.MaxValue + 2<<10; s.Cost() < len(b) || s.Cost() > opts.MaxCost+texts {
			t.Fatalf("%d bytes cost %d", len(b), s.Cost())
		}
		m := message(t, &s)
		if s.TraceID == [16]byte{} || s.SpanID == [8]byte{} {
			t.Fatal("no identity")
		}
		if len(m.Name) > opts.MaxValue || len(m.GetStatus().GetMessage()) > opts.MaxValue || len(m.TraceState) > opts.MaxValue {
			t.Fatal("a text is too long")
		}
		checkAttributes(t, m.Attributes, opts)
		if len(m.Events) > opts.MaxEvents || len(m.Links) > opts.MaxLinks {
			t.Fatal("too many events or links")
		}
		for _, e := range m.Events {
			checkAttributes(t, e.Attributes, opts)
		}
		for _, l := range m.Links {
			checkAttributes(t, l.Attributes, opts)
		}
	})
}

// kept reports whether the keep-list has a key.
func kept(key string) bool {
	return slices.ContainsFunc(span.DefaultKeep(), func(k string) bool {
		prefix, all := strings.CutSuffix(k, "*")
		return k == key || all && strings.HasPrefix(key, prefix)
	})
}

func checkAttributes(t *testing.T, all []*commonpb.KeyValue, opts Options) {
	if len(all) > opts.MaxAttributes+2 { // and the ids
		t.Fatalf("%d attributes", len(all))
	}
	for _, kv := range all {
		if kept(kv.Key) {
			if len(kv.Value.GetStringValue()) > opts.MaxValue || len(kv.Value.GetArrayValue().GetValues()) > opts.MaxValue {
				t.Fatalf("%s is too long", kv.Key)
			}
			continue
		}
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_IntValue:
			if !strings.HasSuffix(kv.Key, ".size") || v.IntValue < 0 {
				t.Fatalf("%s left", kv.Key)
			}
		default:
			if kv.Key != names.Container && kv.Key != names.Exec {
				t.Fatalf("%s left", kv.Key)
			}
		}
	}
}

// FuzzJSONText compares with encoding/json: the text, its cut, and its size if nothing of it is
// wanted.
func FuzzJSONText(f *testing.F) {
	for _, s := range []string{`"a"`, `"\ud83e\udd80 \ud83e \n\\\""`, `"ß終🦀"`, `"12345678901234567890\""`, `"\u00e9\/"`} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		var want string
		if !utf8.Valid(in) || json.Unmarshal(in, &want) != nil {
			return
		}
		if i := bytes.IndexByte(in, '"'); i < 0 {
			return // null
		}
		read := func(n int) (string, int) {
			var buf []byte
			s := &jsonScan{b: in}
			text, size := s.text(n, &buf)
			if s.peek(); s.failed != 0 || s.i != len(in) {
				t.Fatalf("%q: %s at %d", in, s.failed, s.i)
			}
			return string(text), size
		}
		if got, size := read(len(want) + 1); got != want || size != len(want) {
			t.Fatalf("%q is %q of %d bytes, want %q", in, got, size, want)
		}
		if _, size := read(0); size != len(want) {
			t.Fatalf("%q is %d bytes, want %d", in, size, len(want))
		}
		if cut > 0 && cut < len(want) {
			got, size := read(cut)
			if size != len(want) || !strings.HasPrefix(want, got) || len(got) > cut || len(got) <= cut-utf8.UTFMax || !utf8.ValidString(got) {
				t.Fatalf("%q cut at %d is %q", in, cut, got)
			}
		}
	})
}

// FuzzReader: payloads and errors are those of a simple reader.
func FuzzReader(f *testing.F) {
	f.Add([]byte(frame("a")+frame("")+frame(strings.Repeat("x", 40))+frame("b")), 32)
	f.Add([]byte(frame("a")+"\xff\xff\xff\xff\xff\xff\xff\xff123"), 32)
	f.Add([]byte(frame(strings.Repeat("x", 70<<10))), 80<<10)
	f.Fuzz(func(t *testing.T, stream []byte, limit int) {
		if limit <= 0 {
			return
		}
		var want []string
		rest := stream
		for len(rest) >= prefixSize {
			n := binary.BigEndian.Uint64(rest)
			if n > uint64(len(rest)-prefixSize) {
				break
			}
			if n <= uint64(limit) {
				want = append(want, string(rest[prefixSize:prefixSize+n]))
			}
			rest = rest[prefixSize+n:]
		}
		got, err := readAll(bytes.NewReader(stream), Options{MaxFrame: limit})
		if whole := len(rest) == 0; whole != (err == io.EOF) || whole == errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d bytes left over, ended with %v", len(rest), err)
		}
		if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}
