package relay

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// gcPercent has the first collection come with 4 MB on the heap: a relay that starts and
	// is left alone needs less, and a collection makes the runtime's own lists larger, by
	// 0.5 MB for good, since each size of object has its own then. settle collects what a
	// burst has left.
	gcPercent = 100
	// memoryLimit is what the relay may have on its heap before the garbage collector
	// works harder, in bytes. All that it queues and holds for guests is bounded to
	// less.
	memoryLimit = 64 << 20
	// burstBytes is how much is allocated before it is worthwhile to collect garbage.
	burstBytes = 2 << 20
	// startBytes is how much is allocated before the program's pages are worth looking for,
	// and quietBytes how much may be allocated in a settlePause that counts as rest.
	startBytes = 128 << 10
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
	var last, collected, unmapped uint64 // bytes allocated until the last of each
	timer := time.NewTimer(settlePause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := allocated()
		pause := settlePause
		switch {
		case unmapped > 0 && now-unmapped < startBytes: // the start is a burst in any case
			pause = settledPause
		case now-last > quietBytes:
		case now-collected >= burstBytes:
			debug.FreeOSMemory() // which uses the program: its pages come next
			collected = allocated()
		default:
			UnmapProgram()
			unmapped, pause = allocated(), settledPause
		}
		last = now
		timer.Reset(pause)
	}
}

// allocated returns how many bytes have been allocated on the heap. In contrast to
// runtime.ReadMemStats it does not have each processor put down what it is filling, which
// would cost as much as a collection.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// UnmapProgram unmaps the program's own pages, so that they count as the page cache's
// alone. A start needs many of them, and only once; what is used again is mapped again,
// without reading.
func UnmapProgram() {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	programPages(f, func(m mapping) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.size, unix.MADV_DONTNEED)
	})
}

// mapping is a part of the address space, in bytes.
type mapping struct{ start, size uintptr }

// programPages reads a text in the form of /proc/PID/smaps, and calls f with each mapping
// of a file whose pages are as they are in the file. A page that was written to would be
// lost, even if it was made read-only afterwards. It allocates next to nothing.
func programPages(smaps io.Reader, f func(mapping)) {
	var m mapping
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Bytes()
		name, value := cutField(line)
		switch {
		case len(name) == 0:
		case name[len(name)-1] != ':':
			m = parseMapping(line)
		case string(name) == "Anonymous:" || string(name) == "Swap:":
			if kilobytes, _ := cutField(value); string(kilobytes) != "0" {
				m = mapping{}
			}
		case string(name) == "VmFlags:" && m.size > 0: // the last line of each
			f(m)
		}
	}
}

// parseMapping parses the head of a mapping: its range, permissions, offset, device,
// inode and path. It is empty unless it is of a file and cannot be written to.
func parseMapping(line []byte) (m mapping) {
	var f [6][]byte
	for i := range f {
		f[i], line = cutField(line)
	}
	if string(f[1]) != "r-xp" && string(f[1]) != "r--p" || string(f[4]) == "0" || !bytes.HasPrefix(f[5], []byte("/")) {
		return m
	}
	from, to, _ := bytes.Cut(f[0], []byte("-"))
	a, err := strconv.ParseUint(string(from), 16, 64)
	if err != nil {
		return m
	}
	b, err := strconv.ParseUint(string(to), 16, 64)
	if err != nil || b <= a {
		return m
	}
	return mapping{uintptr(a), uintptr(b - a)}
}

// cutField returns the first word of a line, and what is behind it.
func cutField(line []byte) (word, rest []byte) {
	word, rest, _ = bytes.Cut(bytes.TrimLeft(line, " "), []byte(" "))
	return word, rest
}
