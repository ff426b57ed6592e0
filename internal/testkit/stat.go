package testkit

import (
	"bytes"
	"os"
)

// stat returns the fields of a stat file of /proc from the third one, the state, on
// (proc_pid_stat(5)); none if there is no such file.
func stat(file string) [][]byte {
	text, _ := os.ReadFile(file)
	// The name before them, in parentheses, may contain anything.
	return bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
}
