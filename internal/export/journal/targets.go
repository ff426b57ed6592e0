package journal

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// A journal is shipped to one or several targets, each of which has a cursor and a lock of
// its own. The one without a name has shipped.json and ship.lock; the one named x has
// shipped.x.json and ship.x.lock.

func cursorName(target string) string { return "shipped" + suffix(target) + ".json" }

func suffix(target string) string {
	if target == "" {
		return ""
	}
	return "." + target
}

// Target is a target of a journal, and how far it has been shipped to.
type Target struct {
	Name string
	Cursor
}

// Has reports whether the target no longer needs a record: the target has taken it, or it is
// set aside for the target.
func (t Target) Has(r Record) bool { return slices.Contains(r.Taken, t.Name) || t.passed(r) }

// Targets returns the targets that have a cursor, by name.
func Targets(dir string) (all []Target) {
	files, _ := filepath.Glob(filepath.Join(dir, "shipped*.json"))
	slices.Sort(files)
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "shipped"), ".json")
		if name != "" && name[0] != '.' {
			continue // another file
		}
		name = strings.TrimPrefix(name, ".")
		c, _ := ReadCursor(dir, name)
		all = append(all, Target{name, c})
	}
	return all
}

// Begin gives a target its cursor if it has none, so that the cap counts what the target
// does not get.
func Begin(dir, target string) error {
	if _, err := os.Lstat(filepath.Join(dir, cursorName(target))); err == nil {
		return nil
	}
	return WriteCursor(dir, target, Cursor{})
}

// Forget removes what is kept about a target. It returns ErrShipped while the target is being
// shipped to.
func Forget(dir, target string) error {
	lock, err := LockShipping(dir, target)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := os.Remove(filepath.Join(dir, cursorName(target))); err != nil {
		return err
	}
	return os.Remove(lock.Name())
}

// LoseTo counts spans that a target does not get. The next append, Flush or Close writes
// the counts.
func (j *Journal) LoseTo(target string, r losses.Reason, spans int) {
	if target == "" {
		j.lose(r, spans)
	} else {
		j.toTargets.add(losses.To(target, r), spans)
	}
}

// shippedTo returns the targets of a journal that is shipped.
func (j *Journal) shippedTo() []Target {
	if !j.opts.Shipped {
		return nil
	}
	if all := Targets(j.dir); len(all) > 0 {
		return all
	}
	return make([]Target, 1) // shipping has not begun
}

// without returns the targets that need a record, and the names of the others.
func without(all []Target, r Record) (need []Target, taken []string) {
	for _, t := range all {
		if t.Has(r) {
			taken = append(taken, t.Name)
		} else {
			need = append(need, t)
		}
	}
	return need, taken
}

// A record that is moved because some targets need it begins with the names of those that
// have it, so that these do not get it again: kind has the bit moved, and before the
// payload is a length of two bytes and the names, each with a zero behind it.
const (
	moved    Kind = 0x80
	maxTaken      = 4 << 10 // bounds the names, in bytes
)

func appendTaken(b []byte, names []string) []byte {
	text := strings.Join(names, "\x00") + "\x00"
	b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// parseTaken returns the names before a payload, and their length; false if there are none.
func parseTaken(b []byte) (names []string, length int, ok bool) {
	if len(b) < 2 {
		return nil, 0, false
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n == 0 || n > maxTaken || n > len(b)-2 || b[n+1] != 0 {
		return nil, 0, false
	}
	return strings.Split(string(b[2:n+1]), "\x00"), n + 2, true
}
