package waterfall

// interner shares texts that come again and again, as names and ids do.
type interner struct {
	known map[string]string
	bytes int
	made  int // bytes in all
}

// Bounds of what an interner remembers. When they are reached, it begins anew.
const (
	maxInterned      = 1 << 14
	maxInternedBytes = 1 << 20
)

// intern returns at most maxField bytes of text.
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
