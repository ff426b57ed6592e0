package host

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listening is the flag of a listening Unix socket (Linux, __SO_ACCEPTCON).
const listening = 0x10000

// UnixListeners returns the inode numbers of the sockets that listen at a path, or at an
// abstract name after a zero byte, in our network namespace. There may be several:
// another mount namespace can have the same path.
func (p Proc) UnixListeners(path string) (inodes []uint64) {
	if rest, abstract := strings.CutPrefix(path, "\x00"); abstract {
		path = "@" + rest
	}
	f, err := os.Open(filepath.Join(string(p), "net", "unix"))
	if err != nil {
		return nil
	}
	defer f.Close()
	// Num RefCount Protocol Flags Type St Inode Path
	for s := bufio.NewScanner(f); s.Scan(); {
		line, ok := strings.CutSuffix(s.Text(), " "+path)
		if !ok {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 7 {
			continue
		}
		flags, ferr := strconv.ParseUint(fields[3], 16, 32)
		inode, ierr := strconv.ParseUint(fields[6], 10, 64)
		if ferr == nil && ierr == nil && flags&listening != 0 {
			inodes = append(inodes, inode)
		}
	}
	return inodes
}
