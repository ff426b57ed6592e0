package middleware

import (
	"strings"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// carrier lets a propagator read a request's metadata and collects what it writes. Keys are
// compared without regard to case and written in lower case, as ttrpc's metadata has them;
// if a key repeats, the first value counts, but all values of tracestate are parts of one
// (W3C Trace Context, 3.3.1.1).
type carrier struct {
	req  *wire.Request
	set  []entry
	text []byte // of the values
}

type entry struct {
	key   string
	value []byte
}

// reset has the carrier read a request, with nothing written yet.
func (c *carrier) reset(req *wire.Request) {
	c.req, c.set, c.text = req, c.set[:0], c.text[:0]
}

// Get implements propagation.TextMapCarrier.
func (c *carrier) Get(key string) string {
	joined, parts := "", 0
	for i := range c.req.Metadata {
		if !equalFold(c.req.Metadata[i].Key, key) {
			continue
		}
		value := string(c.req.Metadata[i].Value)
		if !strings.EqualFold(key, stateKey) {
			return value
		}
		if parts++; parts > 1 {
			joined += ","
		}
		joined += value
	}
	return joined
}

// Values implements propagation.ValuesGetter: baggage may come in several parts.
func (c *carrier) Values(key string) (values []string) {
	for i := range c.req.Metadata {
		if equalFold(c.req.Metadata[i].Key, key) {
			values = append(values, string(c.req.Metadata[i].Value))
		}
	}
	return values
}

// Set implements propagation.TextMapCarrier. A request's own baggage goes on as it
// came, since a new encoding of it could only lose something.
func (c *carrier) Set(key, value string) {
	key = strings.ToLower(key)
	if key == baggageKey && c.Get(key) != "" {
		return
	}
	from := len(c.text)
	c.text = append(c.text, value...)
	for i := range c.set {
		if c.set[i].key == key {
			c.set[i].value = c.text[from:]
			return
		}
	}
	c.set = append(c.set, entry{key, c.text[from:]})
}

// Keys implements propagation.TextMapCarrier.
func (c *carrier) Keys() []string {
	keys := make([]string, len(c.req.Metadata))
	for i := range c.req.Metadata {
		keys[i] = string(c.req.Metadata[i].Key)
	}
	return keys
}

// replaces reports whether the request's own entry under key must go: because the key
// was written anew, or because it is among fields, which say something about the
// context that the written one took the place of.
func (c *carrier) replaces(key []byte, fields []string) bool {
	for i := range c.set {
		if equalFold(key, c.set[i].key) {
			return true
		}
	}
	if len(c.set) == 0 || equalFold(key, baggageKey) {
		return false
	}
	for _, f := range fields {
		if equalFold(key, f) {
			return true
		}
	}
	return false
}

// stateKey is W3C's key for what vendors have in a context beside its ids.
const stateKey = "tracestate"

// baggageKey is W3C's key for what goes along with a context but is not part of it.
const baggageKey = "baggage"

func equalFold(a []byte, b string) bool {
	return len(a) == len(b) && strings.EqualFold(string(a), b)
}
