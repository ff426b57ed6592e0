package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
)

// TestDoctor: a host without containerd is one with an error, for people and scripts.
func TestDoctor(t *testing.T) {
	root := t.TempDir()
	command(t, nil, "doctor", "--root", root).want(t, console.Failure, "there is no containerd", "error")
	command(t, nil, "doctor", "extra").want(t, console.Usage, "", "takes no argument")
	r := command(t, nil, "doctor", "--root", root, "--json", "--quiet")
	r.want(t, console.Failure, `"level":"error"`, "error")
	for line := range strings.Lines(r.stdout) {
		var f struct{ Check, Level, What, Do string }
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Check == "" || f.What == "" || f.Level == "ok" {
			t.Errorf("%v: %s", err, line)
		}
	}
}
