package journal

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
)

// When the journal's disk fails, a process that ends leaves its counts of dropped spans
// in a file on another disk, in Options.StateDir. The next process that writes to the
// journal writes them too.

// left is the content of that file.
type left struct {
	Drops   map[string]int `json:"drops,omitempty"`
	Carried map[string]int `json:"carried,omitempty"`
}

const (
	// maxLeft bounds the file: twice maxReasons short texts and their numbers.
	maxLeft = 16 << 10
	// leftWait is how long an ending process waits for the file's lock.
	leftWait = 100 * time.Millisecond
)

func (j *Journal) leftPath() string {
	return filepath.Join(j.opts.StateDir, fmt.Sprintf("lost-%.8x.json", sha256.Sum256([]byte(j.dir))))
}

// leave adds the counts that could not be written to the file.
func (j *Journal) leave() error {
	if j.opts.StateDir == "" {
		return nil
	}
	j.takeLost()
	carried := j.carried.take()
	if len(j.lost)+len(carried) == 0 {
		return nil
	}
	f, err := host.LockFile(j.leftPath(), unix.LOCK_EX, leftWait)
	if err != nil {
		return fmt.Errorf("journal: leave counts: %w", err)
	}
	defer f.Close()
	sum := readLeft(f)
	sum.Drops, sum.Carried = added(sum.Drops, j.lost), added(sum.Carried, carried)
	text, err := json.Marshal(sum)
	if err == nil {
		_, err = f.WriteAt(text, 0) // never shorter than before
	}
	return err
}

func added(a, b map[string]int) map[string]int {
	var sum tally
	sum.addAll(a)
	sum.addAll(b)
	return sum.take()
}

// readLeft returns the counts in the file, or none if it cannot be parsed.
func readLeft(f *os.File) (l left) {
	text, err := io.ReadAll(io.LimitReader(f, maxLeft))
	if err != nil || json.Unmarshal(text, &l) != nil {
		return left{}
	}
	return l
}

// takeLeft writes the counts that others have left, and removes the file. If the
// process dies between the two, they are counted twice.
func (j *Journal) takeLeft() {
	if j.opts.StateDir == "" {
		return
	}
	f, err := private.Open(j.leftPath(), os.O_RDWR, 0)
	if err != nil {
		return // usually because there is none
	}
	defer f.Close()
	if host.Lock(f, unix.LOCK_EX, 0) != nil || !host.IsFile(f, j.leftPath()) {
		return // another process is taking it
	}
	l := readLeft(f)
	for kind, counts := range map[Kind]map[string]int{KindDrops: l.Drops, KindCarried: l.Carried} {
		if j.appendCounts(kind, counts) != nil {
			return
		}
	}
	_ = os.Remove(j.leftPath())
}
