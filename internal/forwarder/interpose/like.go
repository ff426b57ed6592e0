package interpose

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// like copies mode and owner of our socket to the VMM's at the hidden name: somebody may have
// changed them, taking our socket for the VMM's.
func like(hidden string, ours unix.Stat_t) error {
	fd, err := unix.Open(hidden, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is no socket", hidden)
	}
	if st.Uid != ours.Uid || st.Gid != ours.Gid {
		// Only root can have changed the owner, so this takes our own rights.
		err := vmmdir.As(vmmdir.User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, func() error {
			return unix.Fchownat(fd, "", int(ours.Uid), int(ours.Gid), unix.AT_EMPTY_PATH)
		})
		if err != nil {
			return fmt.Errorf("own it as %d:%d: %w", ours.Uid, ours.Gid, err)
		}
	}
	if st.Mode != ours.Mode {
		err := vmmdir.As(vmmdir.User{UID: ours.Uid, GID: ours.Gid}, func() error {
			return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), ours.Mode&0o7777)
		})
		if err != nil {
			return fmt.Errorf("give it mode %o: %w", ours.Mode&0o7777, err)
		}
	}
	return nil
}
