package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// release is one version of the source.
type release struct {
	tree, work string
	// version is as git describes it, without the v of a tag; time is the commit's.
	version string
	time    time.Time
	docs    string // directory of manual pages and completions
}

func newRelease(ctx context.Context, tree, work string) (*release, error) {
	r := &release{tree: tree, work: work, docs: filepath.Join(work, "docs")}
	described, err := r.output(ctx, "git", "describe", "--tags", "--always", "--dirty", "--match", "v[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("the version comes from git: %w", err)
	}
	next, err := r.nextVersion()
	if err != nil {
		return nil, err
	}
	r.version = version(strings.TrimSpace(described), next)
	stamp, err := r.output(ctx, "git", "log", "-1", "--format=%ct")
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(stamp), 10, 64)
	if err != nil {
		return nil, err
	}
	r.time = time.Unix(seconds, 0).UTC()
	return r, nil
}

// version returns a version from git's description, "v0.1.0-4-gabc1234-dirty": after a tag
// a prerelease of the next one, so that it sorts before it.
func version(described, next string) string {
	if tag, ok := strings.CutPrefix(described, "v"); ok && !strings.Contains(tag, "-") {
		return tag
	}
	described = strings.ReplaceAll(described, "-dirty", ".dirty")
	fields := strings.Split(described, "-")
	return next + "~dev." + strings.TrimPrefix(fields[len(fields)-1], "g")
}

// nextVersion is the version that CHANGELOG.md begins with.
func (r *release) nextVersion() (string, error) {
	text, err := os.ReadFile(filepath.Join(r.tree, "CHANGELOG.md"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			return strings.Fields(heading)[0], nil
		}
	}
	return "", errors.New("CHANGELOG.md has no version")
}

// build builds the programs. They say which commit they are of, and nothing of this
// machine's paths.
func (r *release) build(ctx context.Context, dir string, env ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w -buildid= -X main.version="+r.version, "-o", dir+"/", "./cmd/...")
	cmd.Dir = r.tree
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// output runs a program in the source tree and returns what it prints.
func (r *release) output(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = r.tree
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}
