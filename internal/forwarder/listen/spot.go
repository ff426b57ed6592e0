package listen

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// Spot is a path returned by Pattern.Socket that is looked up repeatedly.
type Spot struct {
	path   string
	found  string // path with {user} replaced
	looked time.Time
}

func NewSpot(path string) *Spot { return &Spot{path: path} }

// userPause is the pause between two looks for a user's directory. It costs more than a
// look at a path, and the directory exists before its VMM starts.
const userPause = 20 * time.Millisecond

// Find returns the path and whether its directory exists. For owns see Resolve.
func (s *Spot) Find(owns func(uid uint32) bool) (path string, there bool) {
	if !strings.Contains(s.path, userPlaceholder) {
		return s.path, isThere(s.path)
	}
	if s.found != "" && isThere(s.found) {
		return s.found, true
	}
	s.found = ""
	if now := time.Now(); now.Sub(s.looked) >= userPause {
		s.looked = now
		s.found, there = Resolve(s.path, owns)
	}
	return s.found, there
}

func isThere(path string) bool {
	_, _, err := vmmdir.Identify(filepath.Dir(path))
	return err == nil
}
