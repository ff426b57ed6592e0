package forward

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/host"
)

// forwardAs listens here and starts a process of another user, which reads, decodes,
// stores and ships what guests send. Kata's trace-forwarder drops its own privileges
// once it has bound its socket; then nobody could listen at the sockets of later VMs.
func forwardAs(ctx context.Context, o *Options, from source, report *console.Console) error {
	if os.Geteuid() != 0 {
		return console.UsageError("--user: only root can start a process as another user")
	}
	id, err := credential(o.account)
	if err != nil {
		return err
	}
	if !o.Dump {
		if err := giveDirectory(o.Config.Journal.Dir, id); err != nil {
			return err
		}
	}
	ours, theirs, err := linkPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	// The program's path may lead through directories that are closed to the user; this
	// one does not.
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), linkFDEnv+"=3")
	child.ExtraFiles = []*os.File{theirs}
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Credential: id}
	err = child.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start a process of user %s: %w", o.account.Username, err)
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() {
		ended <- child.Wait()
		stop()
	})
	serveErr := from.serve(ctx, func(conn listen.Conn, from listen.Origin) {
		defer conn.Close()
		if err := ours.send(conn, from); err != nil {
			report.Warn(fmt.Errorf("hand over a connection of sandbox %q, CID %d: %w", from.Sandbox, from.CID, err))
		}
	})
	// The child ends once nothing more can come, within its own bounds.
	ours.Close()
	kill := time.AfterFunc(childPatience, func() { _ = child.Process.Kill() })
	defer kill.Stop()
	running.Wait()
	return errors.Join(serveErr, childError(<-ended, o.account))
}

// childPatience bounds how long the child may take to end.
const childPatience = 30 * time.Second

// childError returns how the child ended; the child has printed why.
func childError(err error, u *user.User) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("the process of user %s ended: %w", u.Username, err)
	}
	return err
}

// lookupUser finds a user by name or number.
func lookupUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if byID, iderr := user.LookupId(name); iderr == nil {
			return byID, nil
		}
	}
	return u, err
}

// credential returns the user's credential, with no supplementary groups.
func credential(u *user.User) (*syscall.Credential, error) {
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uerr, gerr); err != nil {
		return nil, fmt.Errorf("user %s: %w", u.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// giveDirectory makes the directory for a user. One that exists is not ours to give away.
func giveDirectory(dir string, to *syscall.Credential) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Lchown(dir, int(to.Uid), int(to.Gid))
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// linkPair returns the two ends of a new link.
func linkPair() (ours *link, theirs *os.File, err error) {
	conn, theirs, err := host.UnixPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, nil, err
	}
	return &link{conn}, theirs, nil
}
