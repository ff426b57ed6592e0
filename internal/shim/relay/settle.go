package relay

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// gcPercent trades time, of which the relay needs little, for memory, of which
	// there is a relay's worth in every pod.
	gcPercent = 25
	// memoryLimit is what the relay may have on its heap before the garbage collector
	// works harder, in bytes. All that it queues and holds for guests is bounded to
	// less.
	memoryLimit = 64 << 20
	// burstBytes is how much is allocated before it is worth while to give memory back, and
	// quiet how much may be in a settlePause that counts as one of rest.
	burstBytes = 128 << 10
	quietBytes = 32 << 10
	// settlePause and settledPause are between looks at that, before and after a burst
	// is over.
	settlePause  = 2 * time.Second
	settledPause = time.Minute
)

// limitMemory has the garbage collector keep the process small.
func limitMemory() {
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
}

// settle gives memory back to the system whenever a burst of work is over, until ctx is
// done: the start of a pod takes more than the rest of its life.
func settle(ctx context.Context) {
	var last, settled uint64 // bytes allocated until the last look, and until the last time
	freed := false           // at the last look: collecting garbage used the program too
	for pause := settlePause; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		switch {
		case freed:
			UnmapProgram()
			freed, pause = false, settledPause
		case settled > 0 && m.TotalAlloc-settled < burstBytes: // the start is one in any case
			pause = settledPause
		case m.TotalAlloc-last > quietBytes:
			pause = settlePause
		default:
			debug.FreeOSMemory()
			settled, freed, pause = m.TotalAlloc, true, settlePause
		}
		last = m.TotalAlloc
	}
}

// UnmapProgram has the program's own pages counted as the page cache's alone, of which
// a start needs many once: what is used again is mapped again, without reading.
func UnmapProgram() {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range programPages(string(text)) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.size, unix.MADV_DONTNEED)
	}
}

// mapping is a part of the address space, in bytes.
type mapping struct{ start, size uintptr }

// programPages returns, of a text as /proc/PID/smaps has it, what is mapped of files and
// is as it is there: a page that was written to, also before it was protected from that,
// would be lost.
func programPages(smaps string) (all []mapping) {
	var m mapping
	for line := range strings.Lines(smaps) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case !strings.HasSuffix(f[0], ":"):
			m = parseMapping(f)
		case (f[0] == "Anonymous:" || f[0] == "Swap:") && (len(f) < 2 || f[1] != "0"):
			m = mapping{}
		case f[0] == "VmFlags:" && m.size > 0: // the last line of each
			all = append(all, m)
		}
	}
	return all
}

// parseMapping parses the head of a mapping: its range, permissions, offset, device,
// inode and path. It is empty unless it is of a file and cannot be written to.
func parseMapping(f []string) (m mapping) {
	if len(f) < 6 || f[1] != "r-xp" && f[1] != "r--p" || f[4] == "0" || !strings.HasPrefix(f[5], "/") {
		return m
	}
	from, to, _ := strings.Cut(f[0], "-")
	a, err := strconv.ParseUint(from, 16, 64)
	if err != nil {
		return m
	}
	b, err := strconv.ParseUint(to, 16, 64)
	if err != nil || b <= a {
		return m
	}
	return mapping{uintptr(a), uintptr(b - a)}
}
