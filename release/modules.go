package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// linkedModule is a module that is in one of the programs.
type linkedModule struct {
	Path, Version, Sum string
	// License is its identifier of SPDX, Text what it says.
	License string
	Text    []byte
}

// linked returns the modules of the programs in a directory, from what the linker wrote
// into them, with their licenses.
func linked(ctx context.Context, tree, bin string) ([]linkedModule, error) {
	programs, err := filepath.Glob(filepath.Join(bin, "*"))
	if err != nil {
		return nil, err
	}
	var all []linkedModule
	goVersion := ""
	for _, p := range programs {
		info, err := buildinfo.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		goVersion = info.GoVersion
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			if !slices.ContainsFunc(all, func(l linkedModule) bool { return l.Path == m.Path }) {
				all = append(all, linkedModule{Path: m.Path, Version: m.Version, Sum: m.Sum})
			}
		}
	}
	slices.SortFunc(all, func(a, b linkedModule) int { return strings.Compare(a.Path, b.Path) })
	for i := range all {
		dir, err := moduleDir(ctx, tree, all[i])
		if err == nil {
			err = all[i].read(dir)
		}
		if err != nil {
			return nil, err
		}
	}
	std := linkedModule{Path: "std", Version: strings.TrimPrefix(goVersion, "go")}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	if err := std.read(string(bytes.TrimSpace(root))); err != nil {
		return nil, err
	}
	return append([]linkedModule{std}, all...), nil
}

// moduleDir returns where the module's source is.
func moduleDir(ctx context.Context, tree string, m linkedModule) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", m.Path+"@"+m.Version)
	cmd.Dir = tree
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("the source of %s: %w", m.Path, err)
	}
	var d struct{ Dir string }
	return d.Dir, json.Unmarshal(out, &d)
}

var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|patents)`)

// read finds the license in the module's source. A module without one must not be linked.
func (m *linkedModule) read(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() || !licenseFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		m.Text = append(m.Text, fmt.Sprintf("--- %s\n%s\n", e.Name(), bytes.TrimSpace(text))...)
		for _, match := range licensecheck.Scan(text).Match {
			if !slices.Contains(found, match.ID) {
				found = append(found, match.ID)
			}
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%s %s has no license that is known: it must not be linked", m.Path, m.Version)
	}
	slices.Sort(found)
	m.License = strings.Join(found, " AND ")
	return nil
}

// writeNotices writes what the licenses want users to get.
func writeNotices(path string, modules []linkedModule) error {
	var b bytes.Buffer
	b.WriteString("shimtrace's programs contain these modules, under the licenses below.\n\n")
	for _, m := range modules {
		fmt.Fprintf(&b, "%s %s: %s\n", m.Path, m.Version, m.License)
	}
	for _, m := range modules {
		fmt.Fprintf(&b, "\n=== %s %s\n%s", m.Path, m.Version, m.Text)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
