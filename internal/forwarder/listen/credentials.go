package listen

import (
	"fmt"
	"net"
	"slices"

	"golang.org/x/sys/unix"
)

// peerUID returns the user of the process at the other end of a Unix socket: the
// one that connected, or the one that listened.
func peerUID(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if serr != nil {
		return 0, fmt.Errorf("peer credentials: %w", serr)
	}
	return cred.Uid, nil
}

// CheckPeer reports why the process at the other end is not to be trusted, nil if
// it runs as one of the users.
func CheckPeer(conn *net.UnixConn, users ...uint32) error {
	uid, err := peerUID(conn)
	if err != nil {
		return err
	}
	if !slices.Contains(users, uid) {
		return fmt.Errorf("peer runs as user %d, allowed are %v", uid, users)
	}
	return nil
}
