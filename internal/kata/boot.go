package kata

import (
	"bytes"
	"slices"
	"strings"
)

// ConnectSpan is the Go runtime's span for its connecting to the agent, attempts in vain
// included (virtcontainers/kata_agent.go, connect; 3.x to 4.1).
const ConnectSpan = "connect"

// debugWords are parameters of the guest's kernel and agent that have it print more, with
// what they are called here (Linux, Documentation/admin-guide/kernel-parameters.txt; Kata,
// src/agent/src/config.rs; systemd(1)).
var debugWords = []struct{ parameter, word string }{
	{"agent.log=debug", "agent.log"}, {"agent.log=trace", "agent.log"},
	{"agent.debug_console", "debug_console"},
	{"systemd.log_level=debug", "systemd.log_level"},
	{"earlyprintk", "earlyprintk"},
	{"initcall_debug", "initcall_debug"},
	{"ignore_loglevel", "ignore_loglevel"},
	{"debug", "debug"},
}

// DebugWords returns which of the parameters for debugging a VMM's command line gives its
// guest, separated by commas, and nothing else of it. A VMM that gets its guest's parameters
// through a socket does not have them there (Cloud Hypervisor, Firecracker).
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
