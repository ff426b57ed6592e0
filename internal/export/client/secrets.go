package client

import (
	"slices"
	"strings"
	"sync"
)

const (
	// minSecret is the length below which a value is not removed from texts: it protects
	// nothing, and its characters occur everywhere.
	minSecret = 4
	// maxSecrets bounds how many are remembered: values in files may change for years.
	maxSecrets = 64
)

// secrets are values that were sent, and that no message may repeat. A new one has none.
type secrets struct {
	mu   sync.Mutex
	list []string // the oldest first
}

// add has a value hidden from now on. "Bearer abc" is also a secret as "abc".
func (s *secrets) add(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, token, _ := strings.Cut(value, " ")
	for _, v := range []string{value, token} {
		if len(v) < minSecret || slices.Contains(s.list, v) {
			continue
		}
		s.list = append(s.list, v)
	}
	if over := len(s.list) - maxSecrets; over > 0 {
		s.list = slices.Delete(s.list, 0, over)
	}
}

// hide returns a text without the secrets.
func (s *secrets) hide(text string) string {
	s.mu.Lock()
	list := slices.Clone(s.list)
	s.mu.Unlock()
	slices.SortFunc(list, func(x, y string) int { return len(y) - len(x) })
	for _, v := range list {
		text = strings.ReplaceAll(text, v, "…")
	}
	return text
}
