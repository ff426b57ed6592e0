// Package errtext reduces foreign error texts to what may leave the host: those of
// shims, of Kata's runtimes and agents, and texts that these quote. Such a text says
// what failed and may include its input: environments, command lines, whole requests,
// the backtrace of a Rust error.
//
// It keeps what an operator reads first: the first line and, of a Rust error, the
// causes below it; in these the words, paths, numbers and ids. It replaces by "…":
// values of KEY=value, contents of brackets and quotations longer than a word, JSON's
// values, queries and user names of URLs, what follows a word like "password", and long
// words of mixed letters and digits that are no ids.
//
// A secret that looks like an ordinary word cannot be detected. The texts have no
// format, so nothing is parsed.
package errtext

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// Max is the longest text that Reduce returns, in bytes. Of a longer one the
	// beginning and the end are kept: containerd and runc say last why something
	// failed.
	Max  = 512
	tail = Max / 3

	// maxInput bounds the input, in bytes.
	maxInput = 8 << 10
	// maxCauses bounds the causes kept of a Rust error.
	maxCauses = 6
	// maxNesting bounds the depth of quotations within quotations.
	maxNesting = 4
	// maxWord bounds a word.
	maxWord = 160
)

const gap = "…"

// Reduce returns the part of an error's text that may be shown, as UTF-8.
func Reduce[T string | []byte](text T) string {
	b := []byte(text[:min(len(text), maxInput)])
	return string(Append(make([]byte, 0, len(b)+len(gap)), b))
}

// Append appends to out what Reduce returns for a text.
func Append(out, text []byte) []byte {
	text = text[:min(len(text), maxInput)]
	if !utf8.Valid(text) {
		text = bytes.ToValidUTF8(text, []byte("?"))
	}
	r := reducer{out: out[len(out):]}
	var room [1 + maxCauses][]byte
	for i, line := range lines(room[:0], text) {
		if i > 0 {
			r.out = append(r.out, ": "...)
		}
		r.line(line, 0)
	}
	return append(out, shorten(r.out)...)
}

// lines appends the first line and the causes below it.
func lines(kept [][]byte, b []byte) [][]byte {
	causes := false
	for line := range bytes.Lines(b) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0:
		case bytes.HasPrefix(line, []byte("Stack backtrace")), bytes.HasPrefix(line, []byte("stack backtrace")):
			return kept
		case len(kept) == 0:
			kept = append(kept, line)
		case bytes.EqualFold(line, []byte("Caused by:")):
			causes = true
		case causes && len(kept) <= maxCauses:
			kept = append(kept, numbered(line))
		}
	}
	return kept
}

// numbered returns a cause without its number.
func numbered(line []byte) []byte {
	number, rest, ok := bytes.Cut(line, []byte(": "))
	if !ok || !all(number, isDigit) {
		return line
	}
	return rest
}

// shorten keeps the beginning and the end of a text that is too long. It changes the text.
func shorten(b []byte) []byte {
	if len(b) <= Max {
		return b
	}
	head, end := b[:Max-tail-len(gap)], b[len(b)-tail:]
	for len(head) > 0 && !utf8.Valid(head) {
		head = head[:len(head)-1]
	}
	for len(end) > 0 && !utf8.RuneStart(end[0]) {
		end = end[1:]
	}
	return append(append(head, gap...), end...)
}

// reducer reduces lines, one after another.
type reducer struct {
	out []byte
	// suspicious: the word before announces a secret. surely: it does so by a colon, or
	// is an option.
	suspicious, surely bool
}

var closing = map[byte]byte{'{': '}', '[': ']'}

func (r *reducer) line(b []byte, depth int) {
	for len(b) > 0 {
		c := b[0]
		quote := quotation(b)
		switch {
		case quote != "" && (quote != "'" || !r.inWord()):
			var content []byte
			content, b = cutQuote(b[len(quote):], quote)
			r.quoted(content, depth)
		case closing[c] != 0:
			var content []byte
			content, b = cutBracket(b[1:], c)
			r.bracketed(c, content, depth)
		case c <= ' ':
			if n := len(r.out); n > 0 && r.out[n-1] != ' ' {
				r.out = append(r.out, ' ')
			}
			b = b[1:]
		default:
			n := wordLength(b)
			r.word(b[:n])
			b = b[n:]
		}
	}
}

// inWord reports whether an apostrophe belongs to the word before it.
func (r *reducer) inWord() bool {
	n := len(r.out)
	return n > 0 && (isLetter(r.out[n-1]) || isDigit(r.out[n-1]))
}

// quotation returns the quotation mark, escaped or not, that b begins with.
func quotation(b []byte) string {
	for _, q := range []string{`\\\"`, `\"`, `"`, "`", "'"} {
		if len(b) >= len(q) && string(b[:len(q)]) == q {
			return q
		}
	}
	return ""
}

// cutQuote returns the content of a quotation and the rest. A quotation without an end
// takes all.
func cutQuote(b []byte, quote string) (content, rest []byte) {
	for at := 0; at < len(b); at++ {
		if b[at] == '\\' && quote[0] != '\\' {
			at++
			continue
		}
		if bytes.HasPrefix(b[at:], []byte(quote)) && (quote[0] != '\\' || at == 0 || b[at-1] != '\\') {
			return b[:at], b[at+len(quote):]
		}
	}
	return b, nil
}

// cutBracket returns the content of an open bracket and the rest.
func cutBracket(b []byte, open byte) (content, rest []byte) {
	depth := 1
	for at, c := range b {
		switch c {
		case open:
			depth++
		case closing[open]:
			if depth--; depth == 0 {
				return b[:at], b[at+1:]
			}
		}
	}
	return b, nil
}

// wordLength returns the length of the word that b begins with: one byte at least.
func wordLength(b []byte) int {
	for i, c := range b {
		if c <= ' ' || closing[c] != 0 || c == '"' || c == '`' || c == '\\' && quotation(b[i:]) != "" || c == '\'' && i > 0 && !isLetter(b[i-1]) {
			return max(i, 1)
		}
	}
	return len(b)
}

func oneWord(b []byte) bool { return len(b) > 0 && b[0] > ' ' && wordLength(b) == len(b) }

// quoted writes a quotation: a single word as a word, another error's text reduced in
// turn.
func (r *reducer) quoted(content []byte, depth int) {
	secret := r.suspicious || r.isValue()
	inner := r.follows("(") || r.follows("message:") || r.follows("desc =")
	r.suspicious, r.surely = false, false
	r.out = append(r.out, '"')
	switch {
	case secret:
		r.out = append(r.out, gap...)
	case inner && depth < maxNesting:
		r.line(content, depth+1)
	case oneWord(content) && !bytes.ContainsRune(content, '='):
		r.word(content)
	case len(content) > 0:
		r.out = append(r.out, gap...)
	}
	r.out = append(r.out, '"')
	r.suspicious, r.surely = false, false
}

// isValue reports whether a value follows: KEY="…" or JSON's "key": "…".
func (r *reducer) isValue() bool {
	return bytes.HasSuffix(r.out, []byte("=")) || r.follows(`":`)
}

// follows reports whether the last text written is this one, not counting spaces.
func (r *reducer) follows(text string) bool {
	return bytes.HasSuffix(bytes.TrimRight(r.out, " "), []byte(text))
}

// bracketed writes brackets: a single word, or the message of an error printed with all
// its fields, as Rust does.
func (r *reducer) bracketed(open byte, content []byte, depth int) {
	secret := r.suspicious || r.isValue()
	r.suspicious, r.surely = false, false
	r.out = append(r.out, open)
	_, message, found := bytes.Cut(content, []byte("message: "))
	quote := quotation(message)
	switch {
	case len(content) == 0:
	case !secret && found && quote != "" && depth < maxNesting:
		text, _ := cutQuote(message[len(quote):], quote)
		r.line(text, depth+1)
	case !secret && open == '[' && oneWord(content) && !bytes.ContainsAny(content, "=,"):
		r.word(content)
	default:
		r.out = append(r.out, gap...)
	}
	r.out = append(r.out, closing[open])
	r.suspicious, r.surely = false, false
}

// secretWords announce a secret.
var secretWords = []string{"password", "passwd", "passphrase", "secret", "token", "bearer", "basic", "authorization", "credential", "credentials", "apikey", "api_key", "api-key", "private_key", "cookie"}

func isSecretWord(word []byte) bool {
	return slices.ContainsFunc(secretWords, func(secret string) bool {
		n := len(word) - len(secret)
		return n >= 0 && strings.EqualFold(string(word[n:]), secret)
	})
}

// word writes a word, or what may be shown of it.
func (r *reducer) word(word []byte) {
	suspicious, surely := r.suspicious, r.surely
	bare := bytes.Trim(word, ".,;:()")
	if len(bare) == 0 {
		r.out = append(r.out, word...)
		return
	}
	r.suspicious = isSecretWord(bare)
	r.surely = r.suspicious && (word[len(word)-1] == ':' || word[0] == '-')
	switch key, value, assigns := bytes.Cut(word, []byte("=")); {
	case suspicious && !r.suspicious && (surely || len(bare) >= 16 || bytes.ContainsFunc(bare, func(c rune) bool { return c < utf8.RuneSelf && isDigit(byte(c)) })):
		r.hide(word)
	case suspicious && r.suspicious: // "Authorization: Bearer"
		r.surely = true
		r.out = append(r.out, word...)
	case bytes.Contains(word, []byte("://")):
		r.location(word)
	case assigns && len(key) > 0:
		r.out = append(append(r.out, key[:min(len(key), maxWord)]...), '=')
		if len(value) > 0 && (isSecretWord(key) || !harmless(key, value)) {
			r.hide(value)
		} else {
			r.out = append(r.out, value...)
		}
	case len(word) > maxWord, opaque(bare):
		r.hide(word)
	default:
		r.out = append(r.out, word...)
	}
}

// hide writes the gap instead of a word, with the word's punctuation.
func (r *reducer) hide(word []byte) {
	r.out = append(r.out, gap...)
	if last := word[len(word)-1]; strings.IndexByte(",;:)", last) >= 0 {
		r.out = append(r.out, last)
	}
}

// harmless reports whether KEY=value is not from an environment but a detail of a call,
// as runc and others report it: src=/path, flags=MS_BIND|MS_REC, errno=13.
func harmless(key, value []byte) bool {
	value = bytes.TrimRight(value, ".,;:)")
	return all(key, func(c byte) bool {
		return 'a' <= c && c <= 'z' || isDigit(c) || c == '_' || c == '-' || c == '.' || c == '('
	}) &&
		len(value) <= maxWord && !opaque(value) &&
		(len(value) == 0 || value[0] == '/' || all(value, isDigit) ||
			all(value, func(c byte) bool { return 'A' <= c && c <= 'Z' || c == '_' || c == '|' }) ||
			string(value) == "true" || string(value) == "false")
}

// location writes a URL without user and query.
func (r *reducer) location(url []byte) {
	scheme, rest, _ := bytes.Cut(url, []byte("://"))
	if i := bytes.IndexAny(rest, "?#"); i >= 0 {
		punctuation := rest[len(bytes.TrimRight(rest, ".,;:)")):]
		rest = append(bytes.Clone(rest[:i]), punctuation...)
	}
	authority, path, _ := bytes.Cut(rest, []byte("/"))
	authority = authority[bytes.LastIndexByte(authority, '@')+1:]
	r.out = append(append(append(r.out, scheme...), "://"...), authority...)
	if len(path) > 0 {
		r.out = append(append(r.out, '/'), path[:min(len(path), maxWord)]...)
	}
}

// opaque reports whether part of the word is long and mixes lower case, upper case and
// digits, as keys and tokens do. Ids have one case.
func opaque(word []byte) bool {
	const long = 20
	n, lower, upper, digit := 0, false, false, false
	for _, c := range word {
		switch {
		case 'a' <= c && c <= 'z':
			lower = true
		case 'A' <= c && c <= 'Z':
			upper = true
		case isDigit(c):
			digit = true
		case c == '_' || c == '-' || c == '+' || c == '=':
		default:
			n, lower, upper, digit = 0, false, false, false
			continue
		}
		if n++; n >= long && lower && upper && digit {
			return true
		}
	}
	return false
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func all(b []byte, is func(byte) bool) bool {
	for _, c := range b {
		if !is(c) {
			return false
		}
	}
	return len(b) > 0
}
