package kataconfig

import (
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// versionPattern matches what both runtimes print ("… version: 3.20.0, commit: …"), and
// what kata-deploy writes into a file.
var versionPattern = regexp.MustCompile(`(?:version: |^)v?(\d+\.\d+\.\d+[-.+\w]*)`)

// versionOf returns the version of the installation at the prefix: from its file
// VERSION, else from its shim, which is run only on this host.
func versionOf(prefix, shim, root string) string {
	if data, err := tomltree.ReadFile(filepath.Join(prefix, "VERSION")); err == nil {
		if v := parseVersion(string(data)); v != "" {
			return v
		}
	}
	if shim == "" || root != "/" {
		return ""
	}
	return parseVersion(host.Version(shim))
}

func parseVersion(text string) string {
	if m := versionPattern.FindStringSubmatch(strings.TrimSpace(text)); m != nil {
		return m[1]
	}
	return ""
}

// readsDropIns reports whether the version reads drop-ins; an unknown version is
// assumed to. They came with 2.5, in July 2022.
func (c Config) readsDropIns() bool {
	return c.Version == "" || semver.Compare(semver.MajorMinor("v"+c.Version), "v2.5") >= 0
}
