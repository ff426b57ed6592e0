package listen

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// Spot is a path of Pattern.Socket, to be looked at again and again.
type Spot struct {
	path   string
	found  string // what path with {user} in it stands for
	looked time.Time
}

// NewSpot returns the spot of a path.
func NewSpot(path string) *Spot { return &Spot{path: path} }

// userPause is between two looks for a user's directory: that costs more than a look at a
// path, and it is there before its VMM is started.
const userPause = 20 * time.Millisecond

// Find returns the path, and whether its directory is there. owns decides whose is
// believed, see Resolve.
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
