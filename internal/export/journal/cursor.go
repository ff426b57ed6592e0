package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/shimtrace/shimtrace/internal/private"
)

// Position is a place in a journal: everything before Offset in Segment.
type Position struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
}

// Cursor says how far a follower has read: everything before its position, except for
// the segments in Behind.
type Cursor struct {
	Position
	// Behind says how far earlier segments have been read in which a stopped process
	// may yet finish an append.
	Behind []Position `json:"behind,omitempty"`
	// Aside are ranges before the position whose spans the collector has not taken yet,
	// while it takes others.
	Aside []Range `json:"aside,omitempty"`
	// Held are the records before the position for which it is undecided yet whether they
	// are shipped. To the journal they count as unread.
	Held []Range `json:"held,omitempty"`
}

// Range is a part of a segment: the records from Offset to End. Spans is how many of their
// spans it is about, and Tries how often the collector has failed on them.
type Range struct {
	Position
	End   int64 `json:"end"`
	Spans int   `json:"spans"`
	Tries int   `json:"tries,omitempty"`
}

// aside returns how many spans of the segment have been set aside.
func (c Cursor) aside(segment uint64) (spans int) {
	for _, r := range c.Aside {
		if r.Segment == segment {
			spans += r.Spans
		}
	}
	return spans
}

// passed reports whether the cursor is behind the record and the record is not held.
func (c Cursor) passed(r Record) bool {
	at := Position{r.Segment, r.Offset}
	return c.behind(r) && !slices.ContainsFunc(c.Held, func(h Range) bool { return h.Position == at })
}

func (c Cursor) behind(r Record) bool {
	if i := slices.IndexFunc(c.Behind, func(p Position) bool { return p.Segment == r.Segment }); i >= 0 {
		return r.Offset < c.Behind[i].Offset
	}
	return r.Segment < c.Segment || r.Segment == c.Segment && r.Offset < c.Offset
}

// maxCursor bounds the cursor file, in bytes.
const maxCursor = 1 << 20

// ReadCursor returns the cursor that WriteCursor left in the journal's directory for a
// target, or the beginning if there is none. For an unreadable cursor it returns an error
// and the beginning.
func ReadCursor(dir, target string) (Cursor, error) {
	path := filepath.Join(dir, cursorName(target))
	text, err := private.Read(path, maxCursor)
	if errors.Is(err, fs.ErrNotExist) {
		return Cursor{}, nil
	}
	if err != nil {
		return Cursor{}, fmt.Errorf("journal: cursor: %w", err)
	}
	var c Cursor
	if err := json.Unmarshal(text, &c); err != nil {
		return Cursor{}, fmt.Errorf("journal: cursor %s: %w; it is read from the beginning", path, err)
	}
	c.Behind = c.Behind[:min(len(c.Behind), maxBehind)]
	return c, nil
}

// WriteCursor writes a target's cursor to the journal's directory, atomically.
func WriteCursor(dir, target string, c Cursor) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("journal: cursor: %w", err)
	}
	path := filepath.Join(dir, cursorName(target))
	if err := private.Replace(path, path+".tmp", text, 0o600); err != nil {
		return fmt.Errorf("journal: cursor: %w", err)
	}
	return nil
}
