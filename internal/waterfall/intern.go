package waterfall

// interner shares texts that recur, such as names and ids.
type interner struct {
	known map[string]string
	bytes int
	made  int // bytes ever interned
}

// Bounds of what an interner remembers. At a bound it starts anew.
const (
	maxInterned      = 1 << 14
	maxInternedBytes = 1 << 20
)

// intern returns text, cut to maxField bytes.
func (in *interner) intern(text []byte) string {
	if len(text) == 0 {
		return ""
	}
	text = text[:min(len(text), maxField)]
	if known, ok := in.known[string(text)]; ok {
		return known
	}
	if in.known == nil || len(in.known) >= maxInterned || in.bytes+len(text) > maxInternedBytes {
		in.known, in.bytes = make(map[string]string), 0
	}
	own := string(text)
	in.known[own] = own
	in.bytes += len(own)
	in.made += len(own)
	return own
}
