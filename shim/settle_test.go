package shim

import "testing"

// Only what nobody can have written to is given back.
func TestProgramPages(t *testing.T) {
	for line, want := range map[string][2]uintptr{
		"00400000-00800000 r-xp 00000000 08:01 42    /usr/bin/containerd-shim-traced-v2\n": {0x400000, 0x400000},
		"00800000-00c00000 r--p 00400000 08:01 42    /usr/bin/containerd-shim (deleted)\n": {0x800000, 0x400000},
		"00c00000-00c80000 rw-p 00800000 08:01 42    /usr/bin/containerd-shim-traced-v2\n": {},
		"c000000000-c000400000 rw-p 00000000 00:00 0\n":                                    {},
		"7fff0000-7fff1000 r--p 00000000 00:00 0     [vvar]\n":                             {},
		"7fff1000-7fff2000 r-xp 00000000 00:00 0     [vdso]\n":                             {},
		"7f0000000000-7f0000001000 r--s 00000000 00:05 42    /dev/shm/x\n":                 {},
		"00800000-00400000 r-xp 00000000 08:01 42    /usr/bin/x\n":                         {},
		"x-y r-xp 00000000 08:01 42    /usr/bin/x\n":                                       {},
		"": {},
	} {
		start, size, ok := programPages(line)
		if got := [2]uintptr{start, size}; got != want || ok != (want != [2]uintptr{}) {
			t.Errorf("%q: %#x, %v", line, got, ok)
		}
	}
	unmapProgram() // and the program runs on
}
