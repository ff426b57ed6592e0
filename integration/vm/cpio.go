package vm

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"
)

// The file types and the one permission of an archive: all is root's.
const (
	cpioDir  = 0o040755
	cpioFile = 0o100755
)

// An archive writes cpio's "newc" format, which the kernel unpacks as its first
// file system (Documentation/driver-api/early-userspace/buffer-format.rst). It
// makes the directories that names need. The same calls give the same bytes: no
// times, no owners.
type archive struct {
	w    *bufio.Writer
	size int64
	ino  uint32
	dirs map[string]bool
	err  error // the first one; later calls do nothing
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{"": true, ".": true}}
}

// file adds the content of the machine's file from, executable.
func (a *archive) file(name, from string) {
	f, err := os.Open(from)
	if err != nil {
		a.fail(err)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		a.fail(err)
	case !st.Mode().IsRegular() || st.Size() > math.MaxUint32:
		a.fail(fmt.Errorf("%s: not a regular file below 4 GiB", from))
	default:
		a.entry(name, cpioFile, f, st.Size())
	}
}

func (a *archive) text(name, text string) {
	a.entry(name, cpioFile, strings.NewReader(text), int64(len(text)))
}

func (a *archive) dir(name string) {
	if name = clean(name); !a.dirs[name] {
		a.dirs[name] = true
		a.entry(name, cpioDir, strings.NewReader(""), 0)
	}
}

// close ends the archive and returns the first error of all calls.
func (a *archive) close() error {
	a.header("TRAILER!!!", 0, 0)
	if err := a.w.Flush(); err != nil {
		a.fail(err)
	}
	return a.err
}

func (a *archive) entry(name string, mode uint32, content io.Reader, size int64) {
	name = clean(name)
	if parent := path.Dir(name); !a.dirs[parent] {
		a.dir(parent)
	}
	a.ino++
	a.header(name, mode, size)
	if a.err != nil {
		return
	}
	if _, err := io.CopyN(a.w, content, size); err != nil {
		a.fail(fmt.Errorf("%s: %w", name, err))
	}
	a.size += size
	a.pad()
}

// header's fields are: inode, mode, links, uid, gid, mtime, size, device (2),
// device node (2), length of the name with its NUL, checksum (unused).
func (a *archive) header(name string, mode uint32, size int64) {
	if a.err != nil {
		return
	}
	n, err := fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.ino, mode, 1, 0, 0, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	if err != nil {
		a.fail(err)
	}
	a.size += int64(n)
	a.pad()
}

// pad aligns headers and contents to four bytes.
func (a *archive) pad() {
	for ; a.size%4 != 0 && a.err == nil; a.size++ {
		if err := a.w.WriteByte(0); err != nil {
			a.fail(err)
		}
	}
}

func (a *archive) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// clean makes a name relative, as the archive has it.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
