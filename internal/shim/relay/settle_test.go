package relay

import (
	"slices"
	"strings"
	"testing"
)

// Only what nobody can have written to is given back.
func TestProgramPages(t *testing.T) {
	const (
		clean   = "Shared_Dirty:          0 kB\nPrivate_Dirty:         8 kB\nAnonymous:             0 kB\nSwap:                  0 kB\nVmFlags: rd ex mr mw me\n"
		dirty   = "Shared_Dirty:          0 kB\nPrivate_Dirty:         4 kB\nAnonymous:             4 kB\nSwap:                  0 kB\nVmFlags: rd ex mr mw me\n"
		swapped = "Shared_Dirty:          0 kB\nPrivate_Dirty:         0 kB\nAnonymous:             0 kB\nSwap:                  4 kB\nVmFlags: rd ex mr mw me\n"
	)
	smaps := "00400000-00800000 r-xp 00000000 08:01 42    /usr/bin/containerd-shim-traced-v2\n" + clean +
		"00800000-00c00000 r--p 00400000 08:01 42    /usr/bin/containerd-shim-traced-v2 (deleted)\n" + clean +
		"00c00000-00c80000 rw-p 00800000 08:01 42    /usr/bin/containerd-shim-traced-v2\n" + clean +
		"00d00000-00d80000 r--p 00800000 08:01 42    /usr/lib/relocated.so\n" + dirty +
		"00e00000-00e80000 r--p 00800000 08:01 42    /usr/lib/swapped.so\n" + swapped +
		"c000000000-c000400000 rw-p 00000000 00:00 0\n" + clean +
		"7fff0000-7fff1000 r--p 00000000 00:00 0     [vvar]\n" + clean +
		"7f0000000000-7f0000001000 r--s 00000000 00:05 42    /dev/shm/x\n" + clean +
		"00800000-00400000 r-xp 00000000 08:01 42    /usr/bin/x\n" + clean +
		"x-y r-xp 00000000 08:01 42    /usr/bin/x\n" + clean
	want := []mapping{{0x400000, 0x400000}, {0x800000, 0x400000}}
	pages := func(text string) (all []mapping) {
		programPages(strings.NewReader(text), func(m mapping) { all = append(all, m) })
		return all
	}
	if got := pages(smaps); !slices.Equal(got, want) {
		t.Errorf("%#x, want %#x", got, want)
	}
	if got := pages("nonsense\n\n"); len(got) != 0 {
		t.Errorf("%#x", got)
	}
	UnmapProgram() // and the program runs on
}
