package kataconfig

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

const dirName = "config.d"

// fileName is the drop-in's name. kata-deploy uses 10 to 50, and its documentation
// leaves numbers up to 89 to others: an operator's file may come after this one and
// override it.
const fileName = "80-shimtrace.toml"

// Settings say which tracing to turn on.
type Settings struct {
	// Agent: agents send their spans to the host.
	Agent bool
	// Runtime: the runtime posts its spans to Endpoint, the URL of a collector for
	// Jaeger's Thrift over HTTP.
	Runtime  bool
	Endpoint string
}

// The first line says who wrote the file, the second detects later changes.
const (
	header   = "# Written by \"shimtrace install --kata\"; \"shimtrace install --uninstall --kata\" removes it.\n"
	checksum = "# Checksum of the rest: "
	madeDir  = "# config.d was made for it and goes with it.\n"
)

// agentName matches names that need no quotes in TOML.
var agentName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// lines returns the lines that turn the settings on for these agents. Both runtimes
// have the same keys.
func (s Settings) lines(agents []string) (string, error) {
	var b strings.Builder
	if s.Agent {
		for _, name := range agents {
			if !agentName.MatchString(name) {
				return "", fmt.Errorf("the agent's name %q is none that Kata knows", name)
			}
			fmt.Fprintf(&b, "[agent.%s]\nenable_tracing = true\n\n", name)
		}
	}
	if s.Runtime {
		fmt.Fprintf(&b, "[runtime]\nenable_tracing = true\njaeger_endpoint = %q\n\n", s.Endpoint)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// render returns a drop-in with the lines.
func render(lines string, made bool) []byte {
	if made {
		lines = madeDir + lines
	}
	return []byte(header + checksum + sum(lines) + "\n" + lines)
}

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%x", h[:8])
}

// written is the file in the drop-in's place.
type written struct {
	there   bool
	ours    bool // shimtrace wrote it
	changed bool // it was changed since
	made    bool // its directory was created for it
	content []byte
}

func inspect(path string) (written, error) {
	content, err := tomltree.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return written{}, nil
	}
	if err != nil {
		return written{}, err
	}
	w := written{there: true, content: content}
	rest, ok := bytes.CutPrefix(content, []byte(header+checksum))
	if !ok {
		return w, nil
	}
	was, lines, _ := strings.Cut(string(rest), "\n")
	w.ours, w.changed, w.made = true, was != sum(lines), strings.HasPrefix(lines, madeDir)
	return w, nil
}
