package span

import "unicode/utf8"

// CutText returns at most n bytes of text without splitting a character. whole says that text
// was not cut before.
func CutText(text []byte, n int, whole bool) []byte {
	if len(text) <= n {
		if whole {
			return text
		}
		n = len(text)
	}
	text = text[:n]
	for i := n - 1; i >= 0 && i >= n-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return text[:i]
			}
			break
		}
	}
	return text
}

// texts makes strings of the few texts that an agent's spans repeat (the names of some 150
// functions, ids), and allocates each once.
type texts struct {
	known map[string]string
}

const (
	maxNames      = 1024
	maxNameLength = 256
)

func (n *texts) get(text []byte) string {
	if len(text) == 0 {
		return ""
	}
	if s, ok := n.known[string(text)]; ok {
		return s
	}
	s := string(text)
	if len(s) > maxNameLength {
		return s
	}
	if n.known == nil {
		n.known = make(map[string]string)
	}
	if len(n.known) == maxNames {
		clear(n.known) // only a guest that invents names pays, with new strings
	}
	n.known[s] = s
	return s
}
