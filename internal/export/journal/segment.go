package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const segmentSuffix = ".seg"

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d%s", number, segmentSuffix))
}

// listSegments returns the numbers of the segments in dir, lowest first. A
// directory that does not exist has none.
func listSegments(dir string) ([]uint64, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer d.Close()
	var numbers []uint64
	for {
		names, err := d.Readdirnames(namesAtOnce)
		for _, name := range names {
			digits, ok := strings.CutSuffix(name, segmentSuffix)
			if !ok || len(digits) != 20 {
				continue
			}
			if n, err := strconv.ParseUint(digits, 10, 64); err == nil {
				numbers = append(numbers, n)
			}
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(numbers)
			return numbers, nil
		}
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if len(numbers) > maxSegments {
			return nil, fmt.Errorf("journal: %s has more than %d segments: it is no journal that a writer has made", dir, maxSegments)
		}
	}
}

// maxSegments bounds the segments of a journal, namesAtOnce the file names read at
// once.
const maxSegments, namesAtOnce = 1 << 20, 4096

func exists(dir string, number uint64) bool {
	return unix.Access(segmentPath(dir, number), unix.F_OK) == nil
}
