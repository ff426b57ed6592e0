package listen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCID: no VM with a CID has been found for a sandbox.
var ErrNoCID = errors.New("the sandbox has no VM with a VSOCK CID")

// CIDSource says where to look for a sandbox's CID.
type CIDSource struct {
	// Sandbox is the sandbox's id.
	Sandbox string
	// Shim is the process id of the inner shim: of the one that serves, to which
	// its socket's credentials lead, not of the one that started it.
	Shim int
	// Proc is /proc, unless set; it must be of the host's process namespace.
	Proc string
	// Sandboxes is where Kata's Go runtime keeps its sandboxes' state,
	// /run/vc/sbs unless set.
	Sandboxes string
}

// FindCID returns the CID of the sandbox's VM, trying until ctx is done while the
// sandbox starts: ErrNoCID then. It finds
//
//   - guest-cid=<n> in the command line of a QEMU that descends from the shim,
//     where it is from QEMU's start;
//   - the same of a QEMU of root that names the sandbox: older Go runtimes
//     let QEMU become a daemon, whose parent is init;
//   - "AgentState":{"URL":"vsock://<n>:1024"} in persist.json of the Go runtime,
//     written when the sandbox has been created.
//
// It is for shims that run VMs. A container under runc is a descendant of its
// shim as well, and may call itself what it likes: processes in another process
// namespace than ours are passed over.
func FindCID(ctx context.Context, from CIDSource) (uint32, error) {
	if err := checkSandbox(from.Sandbox); err != nil {
		return 0, err
	}
	if from.Proc == "" {
		from.Proc = "/proc"
	}
	if from.Sandboxes == "" {
		from.Sandboxes = "/run/vc/sbs"
	}
	f := cidFinder{CIDSource: from, proc: procFS(from.Proc)}
	for pause, scan := firstLook, time.Now().Add(firstScan); ; pause = min(2*pause, lastLook) {
		cid, ok := f.look()
		if !ok && !time.Now().Before(scan) {
			cid, ok = f.scan()
			scan = time.Now().Add(10 * pause)
		}
		if ok {
			return cid, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("sandbox %s: %w", from.Sandbox, ErrNoCID)
		case <-time.After(pause):
		}
	}
}

const (
	// firstLook and lastLook are the pauses between looks, which cost a few system
	// calls; every look takes twice as long as the one before.
	firstLook = 20 * time.Millisecond
	lastLook  = time.Second
	// firstScan is when all processes of the host are looked at for the first time.
	// That is seldom needed, and costs most.
	firstScan = 500 * time.Millisecond
)

type cidFinder struct {
	CIDSource
	proc procFS
}

// look finds the CID where it usually is.
func (f *cidFinder) look() (uint32, bool) {
	for _, pid := range f.proc.descendants(f.Shim) {
		if cid, ok := f.cidOf(pid, false); ok {
			return cid, true
		}
	}
	return f.persisted()
}

// scan looks at every process.
func (f *cidFinder) scan() (uint32, bool) {
	for _, pid := range f.proc.all() {
		if cid, ok := f.cidOf(pid, true); ok {
			return cid, true
		}
	}
	return 0, false
}

// cidOf returns the CID in a process's command line. A stranger must name the
// sandbox and be root's.
func (f *cidFinder) cidOf(pid int, stranger bool) (uint32, bool) {
	args := f.proc.args(pid)
	cid, ok := guestCID(args)
	if !ok || stranger && !namesSandbox(args, f.Sandbox) {
		return 0, false
	}
	if !f.proc.sameNamespace(pid) || stranger && !f.proc.ofRoot(pid) {
		return 0, false
	}
	return cid, true
}

// guestCID finds QEMU's -device vhost-vsock-pci,…,guest-cid=<n>.
func guestCID(args [][]byte) (uint32, bool) {
	for _, arg := range args {
		if !bytes.HasPrefix(arg, []byte("vhost-vsock-")) {
			continue
		}
		for option := range bytes.SplitSeq(arg, []byte(",")) {
			if n, ok := bytes.CutPrefix(option, []byte("guest-cid=")); ok {
				return parseCID(string(n))
			}
		}
	}
	return 0, false
}

// namesSandbox finds QEMU's -name sandbox-<id>, or the sandbox's directory in a
// path.
func namesSandbox(args [][]byte, sandbox string) bool {
	name, dir := []byte("sandbox-"+sandbox), []byte("/"+sandbox+"/")
	for _, arg := range args {
		if first, _, _ := bytes.Cut(arg, []byte(",")); bytes.Equal(first, name) || bytes.Contains(arg, dir) {
			return true
		}
	}
	return false
}

func parseCID(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < firstGuest || n == unix.VMADDR_CID_ANY {
		return 0, false
	}
	return uint32(n), true
}

// maxPersist bounds persist.json in bytes; a pod's has some 20 kB.
const maxPersist = 1 << 20

// persisted reads what the Go runtime has written.
func (f *cidFinder) persisted() (uint32, bool) {
	file, err := os.Open(filepath.Join(f.Sandboxes, f.Sandbox, "persist.json"))
	if err != nil {
		return 0, false
	}
	defer file.Close()
	var state struct{ AgentState struct{ URL string } }
	if err := json.NewDecoder(io.LimitReader(file, maxPersist)).Decode(&state); err != nil {
		return 0, false // not written to its end yet
	}
	rest, ok := strings.CutPrefix(state.AgentState.URL, "vsock://")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, ":")
	return parseCID(number)
}
