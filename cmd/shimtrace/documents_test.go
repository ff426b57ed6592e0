package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
)

// TestDocumentedCommands: each command line of ours in the documents has a command and
// options that are there.
func TestDocumentedCommands(t *testing.T) {
	n := 0
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range documented(string(text)) {
				n++
				r := command(t, nil, append(slices.Clone(args), "--help")...)
				// Help is then asked for about the argument, once all options were understood.
				if r.code != console.OK && !strings.Contains(r.stderr, "No help topic") {
					t.Errorf("%s: shimtrace %s: exit code %d: %s", file, strings.Join(args, " "), r.code, r.stderr)
				}
			}
		}
	}
	if n < 25 {
		t.Errorf("only %d were found", n)
	}
}

// documented returns the arguments of our command lines in a document's blocks for the
// shell.
func documented(text string) (all [][]string) {
	shell := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			shell = line == "```sh"
			continue
		}
		line, _, _ = strings.Cut(line, " #")
		line, _, _ = strings.Cut(line, " | ")
		line, _, _ = strings.Cut(line, " > ")
		fields := strings.Fields(line)
		for len(fields) > 0 && (strings.Contains(fields[0], "=") || fields[0] == "sudo") {
			fields = fields[1:]
		}
		if shell && len(fields) > 1 && filepath.Base(fields[0]) == "shimtrace" {
			for i := range fields {
				fields[i] = strings.Trim(fields[i], `'"`)
			}
			all = append(all, fields[1:])
		}
	}
	return all
}
