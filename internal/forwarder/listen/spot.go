package listen

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// Spot is a path that Pattern.Socket or Pattern.listenPath returned, to be looked up
// repeatedly.
type Spot struct {
	path   string
	found  string // path with {user} replaced
	looked time.Time
}

// NewSpot returns a Spot for such a path.
func NewSpot(path string) *Spot { return &Spot{path: path} }

// userPause is the pause between two looks for a user's directory. It costs more than a
// look at a path, and the directory exists before its VMM starts.
const userPause = 20 * time.Millisecond

// Find returns the path and whether its directory exists. For owns see resolve.
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
		s.found, there = resolve(s.path, owns)
	}
	return s.found, there
}

// is reports whether path is one that the spot's path may stand for, whether it
// exists or not.
func (s *Spot) is(path string) bool {
	before, after, ok := strings.Cut(s.path, userPlaceholder)
	if !ok {
		return path == s.path
	}
	rest, begins := strings.CutPrefix(path, before)
	user, ends := strings.CutSuffix(rest, after)
	_, err := strconv.ParseUint(user, 10, 32)
	return begins && ends && err == nil
}

func isThere(path string) bool {
	_, _, err := vmmdir.Identify(filepath.Dir(path))
	return err == nil
}
