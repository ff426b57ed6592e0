package testkit

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Processes returns the processes whose arguments are as is says; the first one is the
// program's name. Those that are [Forked] are not among them.
func Processes(is func(args []string) bool) (pids []int) {
	for range 5 {
		var ended bool
		if pids, ended = processes(is); !ended {
			break
		}
		// It may have left another one, which was not listed yet.
	}
	return pids
}

// processes looks once. ended says that one that was listed has ended meanwhile.
func processes(is func(args []string) bool) (pids []int, ended bool) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, err := arguments(dir)
		if err != nil {
			ended = true
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || len(line) == 0 {
			continue // of the kernel, or a zombie
		}
		if is(strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")) && !Forked(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, ended
}

// arguments reads a process's arguments. One that is about to execute a program has none for
// a moment, but has the program.
func arguments(dir string) (line []byte, err error) {
	for range 20 {
		if line, err = os.ReadFile(filepath.Join(dir, "cmdline")); err != nil || len(line) > 0 {
			break
		}
		if _, err := os.Readlink(filepath.Join(dir, "exe")); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return line, err
}

// With is for Processes: those that have the text in an argument.
func With(text string) func(args []string) bool {
	return func(args []string) bool { return strings.Contains(strings.Join(args, " "), text) }
}
