package agent

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// jsonScan walks over JSON without building anything. Like bincodeCursor, it keeps its first
// failure and then reads empty values. It takes all JSON that serde_json 1 writes, and is
// lenient where that is harmless (control characters in strings, the grammar inside skipped
// values).
type jsonScan struct {
	b      []byte
	i      int
	failed losses.Reason
}

func (s *jsonScan) fail(r losses.Reason) {
	if s.failed == 0 {
		s.failed = r
	}
}

func (s *jsonScan) ok() bool { return s.failed == 0 }

// peek skips white space and returns the next byte, 0 at the end.
func (s *jsonScan) peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}
	return 0
}

// expect steps over c.
func (s *jsonScan) expect(c byte) {
	if s.failed != 0 {
		return
	}
	if s.peek() == c {
		s.i++
	} else if s.i == len(s.b) {
		s.fail(losses.Truncated)
	} else {
		s.fail(losses.Malformed)
	}
}

// more steps to element n of an object or array that expect has begun. If there is
// no such element, it steps past the end:
//
//	s.expect('[')
//	for n := 0; s.more(n, ']'); n++ {
func (s *jsonScan) more(n int, end byte) bool {
	if s.failed != 0 {
		return false
	}
	if s.peek() == end {
		s.i++
		return false
	}
	if n > 0 {
		s.expect(',')
	}
	return s.failed == 0
}

// word steps over a literal if it comes next.
func (s *jsonScan) word(w string) bool {
	if s.failed != 0 || s.peek() != w[0] {
		return false
	}
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		s.fail(losses.Malformed)
		return false
	}
	s.i += len(w)
	return true
}

func (s *jsonScan) null() bool { return s.word("null") }

func (s *jsonScan) bool() bool {
	if s.word("true") {
		return true
	}
	if !s.word("false") {
		s.fail(losses.Malformed)
	}
	return false
}

// number returns the next number, unchecked.
func (s *jsonScan) number() []byte {
	if s.failed != 0 {
		return nil
	}
	s.peek()
	start := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case '0' <= c && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			s.i++
			continue
		}
		break
	}
	if s.i == start {
		s.fail(losses.Malformed)
	}
	return s.b[start:s.i]
}

func (s *jsonScan) u64() uint64 {
	hi, lo := s.u128()
	if hi != 0 {
		s.fail(losses.Malformed)
	}
	return lo
}

func (s *jsonScan) u32() uint32 {
	n := s.u64()
	if n > math.MaxUint32 {
		s.fail(losses.Malformed)
	}
	return uint32(n)
}

func (s *jsonScan) u8() uint8 {
	n := s.u64()
	if n > math.MaxUint8 {
		s.fail(losses.Malformed)
	}
	return uint8(n)
}

func (s *jsonScan) u128() (hi, lo uint64) {
	for _, c := range s.number() {
		if c < '0' || c > '9' {
			s.fail(losses.Malformed)
			return 0, 0
		}
		over, h := bits.Mul64(hi, 10)
		carry, l := bits.Mul64(lo, 10)
		l, c1 := bits.Add64(l, uint64(c-'0'), 0)
		h, c2 := bits.Add64(h, carry, c1)
		if over != 0 || c2 != 0 {
			s.fail(losses.Malformed)
			return 0, 0
		}
		hi, lo = h, l
	}
	return hi, lo
}

func (s *jsonScan) i64() int64 {
	n, err := strconv.ParseInt(string(s.number()), 10, 64)
	if err != nil {
		s.fail(losses.Malformed)
	}
	return n
}

func (s *jsonScan) f64() float64 {
	f, err := strconv.ParseFloat(string(s.number()), 64)
	if err != nil {
		s.fail(losses.Malformed)
	}
	return f
}

// text reads a string and returns at most want bytes of it. The result lies in the payload, or
// in *buf if it had escapes. size is the length of the whole string in UTF-8.
func (s *jsonScan) text(want int, buf *[]byte) (text []byte, size int) {
	s.expect('"')
	if s.failed != 0 {
		return nil, 0
	}
	start := s.i
	end := nextSpecial(s.b, start)
	if end < len(s.b) && s.b[end] == '"' {
		text, size, s.i = s.b[start:end], end-start, end+1
		if want == 0 {
			return nil, size
		}
		text = span.CutText(text, want, true)
	} else {
		var room []byte
		if want > 0 {
			room = (*buf)[:0]
		}
		if text, size = s.escaped(want, room); want == 0 {
			return nil, size
		}
		*buf = text
		text = span.CutText(text, want, len(text) == size)
	}
	if !utf8.Valid(text) {
		s.fail(losses.NotText)
		return nil, size
	}
	return text, size
}

// escaped reads the rest of a string with escapes and appends its beginning to buf: want bytes,
// or a few more.
func (s *jsonScan) escaped(want int, buf []byte) (text []byte, size int) {
	b, i := s.b, s.i
	for {
		j := nextSpecial(b, i)
		size += j - i
		if room := want - len(buf); room > 0 {
			buf = append(buf, b[i:min(j, i+room)]...)
		}
		if j >= len(b)-1 && (j == len(b) || b[j] != '"') {
			s.i = len(b)
			s.fail(losses.Truncated)
			return buf, size
		}
		if b[j] == '"' {
			s.i = j + 1
			return buf, size
		}
		var r rune
		switch c := b[j+1]; c {
		case '"', '\\', '/':
			r = rune(c)
		case 'b':
			r = '\b'
		case 'f':
			r = '\f'
		case 'n':
			r = '\n'
		case 'r':
			r = '\r'
		case 't':
			r = '\t'
		case 'u':
			r, i = unicodeEscape(b, j)
			if r < 0 {
				s.i = j
				s.fail(losses.Malformed)
				return buf, size
			}
			size += utf8.RuneLen(r)
			if len(buf) < want {
				buf = utf8.AppendRune(buf, r)
			}
			continue
		default:
			s.i = j
			s.fail(losses.Malformed)
			return buf, size
		}
		size++
		if len(buf) < want {
			buf = append(buf, byte(r))
		}
		i = j + 2
	}
}

// unicodeEscape reads \uXXXX at i, or a surrogate pair of two. Half a pair becomes the
// replacement character. The rune is negative if there is no escape.
func unicodeEscape(b []byte, i int) (r rune, end int) {
	r, end = hex4(b, i), i+6
	if r >= 0 && utf16.IsSurrogate(r) {
		if pair := utf16.DecodeRune(r, hex4(b, end)); pair != utf8.RuneError {
			return pair, end + 6
		}
		return utf8.RuneError, end
	}
	return r, end
}

func hex4(b []byte, i int) rune {
	if len(b)-i < 6 || b[i] != '\\' || b[i+1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(b[i+2:i+6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// nextSpecial returns the index of the first quote or backslash in b[i:], len(b) if there is
// none. Most of what the agent sends is debug prints, which have one every few dozen bytes: too
// close for two calls of bytes.IndexByte to pay.
func nextSpecial(b []byte, i int) int {
	const (
		ones    = 0x0101010101010101
		highs   = 0x80 * ones
		quotes  = '"' * ones
		slashes = '\\' * ones
	)
	for ; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		q, s := w^quotes, w^slashes
		// Each zero byte of q or s sets its high bit in hit; higher bits may be set too, but
		// the lowest one is exact.
		if hit := ((q-ones)&^q | (s-ones)&^s) & highs; hit != 0 {
			return i + bits.TrailingZeros64(hit)>>3
		}
	}
	for ; i < len(b) && b[i] != '"' && b[i] != '\\'; i++ {
	}
	return i
}

// skip steps over a value of any kind, however deep, without recursion.
func (s *jsonScan) skip() {
	for depth := 0; s.failed == 0; {
		switch s.peek() {
		case '"':
			s.text(0, nil)
		case '{', '[':
			s.i++
			depth++
			continue
		case '}', ']':
			if depth == 0 {
				s.fail(losses.Malformed)
				return
			}
			s.i++
			depth--
		case ',', ':':
			if depth == 0 {
				s.fail(losses.Malformed)
				return
			}
			s.i++
			continue
		case 0:
			s.fail(losses.Truncated)
			return
		default:
			s.scalar()
		}
		if depth == 0 {
			return
		}
	}
}

// scalar steps over a number, a literal, or anything else that is not structure.
func (s *jsonScan) scalar() {
	for s.i++; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r', ',', ':', '"', '{', '}', '[', ']':
			return
		}
	}
}
