package containerd

import (
	"strings"

	"golang.org/x/mod/semver"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Oldest is the oldest release that shimtrace works with.
const Oldest = "1.6"

// Version returns the version that a containerd's program states, as "1.7.28"; empty if
// it states none.
func Version(program string) string {
	fields := strings.Fields(host.Version(program)) // containerd github.com/containerd/containerd v1.7.28 …
	if len(fields) < 3 {
		return ""
	}
	return plain(fields[2])
}

// plain returns a version without the v, which Debian's lacks, and without Debian's own
// release, which follows a tilde.
func plain(version string) string {
	v, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "~")
	return v
}

// Before reports whether a version is older than another one, such as "2.0". An unknown
// one is not.
func Before(version, other string) bool {
	return semver.IsValid("v"+version) && semver.Compare("v"+version, "v"+other) < 0
}
