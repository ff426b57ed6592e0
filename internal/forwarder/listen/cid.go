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
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// errNoCID means that no VM with a CID has been found for a sandbox.
var errNoCID = errors.New("the sandbox has no VM with a VSOCK CID")

// CIDSource says where to look for a sandbox's CID.
type CIDSource struct {
	// Sandbox is the sandbox's id.
	Sandbox string
	// Shim is the sandbox's inner shim.
	Shim *Shim
	// Sandboxes is where Kata's Go runtime keeps its sandboxes' state,
	// /run/vc/sbs unless set.
	Sandboxes string
	// Pace says how often to look. Default: often for 2 minutes, then seldom.
	Pace *vmmdir.Pace
}

// FindCID returns the CID of the sandbox's VM. It keeps looking until ctx is done, then
// returns errNoCID. It looks for
//
//   - guest-cid=<n> in the command line of a QEMU that descends from the shim,
//     where it is from QEMU's start;
//   - the same of a QEMU that runs as root, began after the shim and names the sandbox:
//     older Go runtimes let QEMU become a daemon, whose parent is init;
//   - "AgentState":{"URL":"vsock://<n>:1024"} in persist.json of the Go runtime,
//     written when the sandbox has been created.
//
// A name or a command line proves nothing by itself: any user can run a program called
// QEMU.
func FindCID(ctx context.Context, from CIDSource) (uint32, error) {
	if err := checkSandbox(from.Sandbox); err != nil {
		return 0, err
	}
	if from.Sandboxes == "" {
		from.Sandboxes = "/run/vc/sbs"
	}
	if from.Pace == nil {
		from.Pace = vmmdir.NewPace(2 * time.Minute)
	}
	f := cidFinder{from}
	began := time.Now()
	scan := began.Add(firstScan)
	for {
		wait, news := f.Pace.Next(firstLook)
		cid, ok := f.look()
		if now := time.Now(); !ok && now.After(scan) {
			cid, ok = f.scan()
			scan = now.Add(max(scanPause, now.Sub(began)/portion))
		}
		if ok {
			return cid, nil
		}
		timer := time.NewTimer(max(wait, min(time.Since(began)/portion, lastLook)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return 0, fmt.Errorf("sandbox %s: %w", from.Sandbox, errNoCID)
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
	}
}

const (
	// firstLook and lastLook bound the pause between looks, each of which costs some
	// system calls. The pause is 1/portion of the time spent looking so far.
	firstLook = 50 * time.Millisecond
	lastLook  = 5 * time.Minute
	portion   = 5
	// firstScan is when the first look at all of the host's processes happens,
	// scanPause the shortest time to the next. A scan is seldom needed and costs most.
	firstScan = 500 * time.Millisecond
	scanPause = 5 * time.Second
)

type cidFinder struct{ CIDSource }

// look searches the shim's descendants and the Go runtime's state.
func (f *cidFinder) look() (uint32, bool) {
	for _, p := range f.Shim.descendants() {
		if cid, ok := guestCID(f.Shim.proc().Args(p.PID)); ok {
			return cid, true
		}
	}
	return f.persisted()
}

// scan looks at every process. Only root's are believed to name the sandbox truthfully.
func (f *cidFinder) scan() (uint32, bool) {
	shim := f.Shim.find()
	if shim.PID == 0 {
		return 0, false
	}
	proc := f.Shim.proc()
	for _, pid := range proc.All() {
		args := proc.Args(pid)
		cid, ok := guestCID(args)
		if !ok || !namesSandbox(args, f.Sandbox) {
			continue
		}
		p, err := proc.Process(pid)
		if err == nil && p.RunsAs(0) && p.PIDNamespace == shim.PIDNamespace && p.Start >= shim.Start {
			return cid, true
		}
	}
	return 0, false
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

// namesSandbox finds QEMU's -name sandbox-<id>, or the sandbox's directory in a path.
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

// clockStep is how far the host's clock may be stepped between a shim's start and a
// look at what the shim has written.
const clockStep = 2 * time.Second

// maxPersist bounds persist.json in bytes; a pod's has some 20 kB.
const maxPersist = 1 << 20

// persisted reads the Go runtime's persist.json. The file must belong to root or our
// own user, and must not be older than the shim: else an earlier sandbox with the same
// id wrote it.
func (f *cidFinder) persisted() (uint32, bool) {
	file, err := os.OpenFile(filepath.Join(f.Sandboxes, f.Sandbox, "persist.json"), unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || !slices.Contains([]int{0, os.Geteuid()}, int(st.Uid)) {
		return 0, false
	}
	if shim := f.Shim.find(); shim.PID != 0 && time.Unix(st.Mtim.Unix()).Before(shim.Started().Add(-clockStep)) {
		return 0, false
	}
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
