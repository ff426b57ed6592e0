package procevents

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/unix"
)

// filter returns the program (classic BPF) that has the kernel drop, before they reach the
// socket, events of other kinds than ours, and those of threads: most of a busy host's.
func filter() []unix.SockFilter {
	keepX := unix.SockFilter{Code: unix.BPF_MISC | unix.BPF_TAX}
	same := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_X, Jt: 0, Jf: 1}
	return []unix.SockFilter{
		load(atWhat),
		jump(uint32(forked), 4, 0),
		jump(uint32(executed), 7, 0),
		jump(uint32(exited), 6, 0),
		jump(uint32(none), 9, 0),
		drop,
		// A fork: of a process, not of a thread.
		load(atChild), keepX, load(atChildGroup),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 3},
		// An exec, or an exit.
		load(atThread), keepX, load(atGroup),
		same, take, drop,
	}
}

// Instructions of filters.
var (
	take = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}
	drop = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
)

func load(at uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
}

// jump compares what was loaded with a number, and skips as many instructions as yes says
// if they are equal, otherwise as many as no says.
func jump(n uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: network(n), Jt: yes, Jf: no}
}

// network returns a number as BPF compares it with a loaded word, which it reads in the
// network's byte order.
func network(n uint32) uint32 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return bits.ReverseBytes32(n)
	}
	return n
}

// maxAlarms bounds the processes of an alarm; a filter has at most 4096 instructions.
const maxAlarms = 2000

// forksOf returns the filter that lets through the forks that some processes make, and
// nothing else.
func forksOf(pids []int) []unix.SockFilter {
	program := []unix.SockFilter{
		load(atWhat),
		jump(uint32(forked), 1, 0),
		drop,
		load(atGroup), // the parent's
	}
	for _, pid := range pids[:min(len(pids), maxAlarms)] {
		program = append(program, jump(uint32(pid), 0, 1), take)
	}
	return append(program, drop)
}

func attach(fd int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
