package kata

import (
	"bytes"
	"slices"
	"strings"
)

// ConnectSpan is the Go runtime's span for connecting to the agent, failed attempts
// included (virtcontainers/kata_agent.go, connect; 3.x to 4.1).
const ConnectSpan = "connect"

// debugWords are parameters that make the guest's kernel, systemd or agent print more,
// each with the word that stands for it here (Linux,
// Documentation/admin-guide/kernel-parameters.txt; Kata, src/agent/src/config.rs;
// systemd(1)).
var debugWords = []struct{ parameter, word string }{
	{"agent.log=debug", "agent.log"}, {"agent.log=trace", "agent.log"},
	{"agent.debug_console", "debug_console"},
	{"systemd.log_level=debug", "systemd.log_level"},
	{"earlyprintk", "earlyprintk"},
	{"initcall_debug", "initcall_debug"},
	{"ignore_loglevel", "ignore_loglevel"},
	{"debug", "debug"},
}

// DebugWords returns the words for the debugging parameters that a VMM's command line gives
// to its guest, separated by commas. It returns nothing else of the command line. A VMM that
// gets its guest's parameters through a socket (Cloud Hypervisor, Firecracker) does not have
// them there.
func DebugWords(args [][]byte) string {
	var found []string
	for _, arg := range args {
		for field := range bytes.FieldsSeq(arg) {
			for _, d := range debugWords {
				is := string(field) == d.parameter || !strings.Contains(d.parameter, "=") && strings.HasPrefix(string(field), d.parameter+"=")
				if is && bytes.ContainsAny(arg, " =") && !slices.Contains(found, d.word) {
					found = append(found, d.word)
				}
			}
		}
	}
	return strings.Join(found, ",")
}
