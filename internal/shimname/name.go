// Package shimname has the naming rules of shims' files: the inner shim's, the link
// under which shimtrace wraps it, and the runtime type for which containerd runs that
// link. It accesses no files.
//
// containerd derives "containerd-shim-a-b" from the last two parts of a runtime type
// "x.y.a.b" (BinaryName in pkg/shim/util.go of containerd 2.4, the same since 1.2).
// Most shims end in "-v2" or "-v1"; some have no version, such as Firecracker's
// containerd-shim-aws-firecracker.
package shimname

import (
	"path/filepath"
	"strings"
	"unicode"
)

const (
	prefix = "containerd-shim-"
	traced = "-traced"
)

// Program is the file name of shimtrace's own shim, the target of all links.
const Program = "containerd-shim-traced-v2"

// RelayProgram is the file name of the program that the shim starts, whose processes live
// longer than a command: relays and the guard.
const RelayProgram = "shimtrace-relay"

// A Name is the name of an inner shim.
type Name struct {
	// Inner is the name's middle: "runc", "kata-qemu".
	Inner string
	// Version is its end, "v2" or "v1", or empty if the file's name has none.
	Version string
}

// split returns the middle and the version of a shim's file name. ok is false if
// containerd cannot derive the name from a runtime type.
func split(file string) (middle, version string, ok bool) {
	middle, ok = strings.CutPrefix(filepath.Base(file), prefix)
	if i := strings.LastIndex(middle, "-v"); i >= 0 && i+2 < len(middle) && strings.Trim(middle[i+2:], "0123456789") == "" {
		middle, version = middle[:i], middle[i+1:]
	}
	for _, part := range strings.FieldsFunc("-"+middle+"-", func(r rune) bool { return unicode.IsLower(r) || unicode.IsUpper(r) || unicode.IsDigit(r) }) {
		ok = ok && (part == "-" || part == "_")
	}
	return middle, version, ok && middle != ""
}

// Parse returns the inner shim's name from its file name or path. ok is false if file
// is no shim's name, or the name of one of shimtrace's links.
func Parse(file string) (n Name, ok bool) {
	middle, version, ok := split(file)
	if !ok || "-"+middle == traced || strings.HasSuffix(middle, traced) {
		return Name{}, false
	}
	return Name{Inner: middle, Version: version}, true
}

// FileOfType returns the file name of the shim that containerd runs for a runtime type.
func FileOfType(runtimeType string) (file string, ok bool) {
	parts := strings.Split(runtimeType, ".")
	if len(parts) < 2 || parts[0] == "" {
		return "", false
	}
	return prefix + strings.Join(parts[len(parts)-2:], "-"), true
}

// OfType returns the name of the inner shim that containerd runs for a runtime type. ok is
// false if it runs one of shimtrace's links.
func OfType(runtimeType string) (n Name, ok bool) {
	file, ok := FileOfType(runtimeType)
	if !ok {
		return Name{}, false
	}
	return Parse(file)
}

// ParseLink returns the name of the inner shim that a link, given by name or path,
// wraps. ok is false if the name is not a link's.
func ParseLink(link string) (n Name, ok bool) {
	middle, version, ok := split(link)
	inner, wraps := strings.CutSuffix(middle, traced)
	if !ok || !wraps || inner == "" {
		return Name{}, false
	}
	return Name{Inner: inner, Version: version}, true
}

// Files returns the possible names of the inner shim's file, the likeliest first. A
// link without a version is made for shims without one, and for runc's.
func (n Name) Files() []string {
	if n.Version == "" {
		return []string{prefix + n.Inner, prefix + n.Inner + "-v2"}
	}
	return []string{prefix + n.Inner + "-" + n.Version}
}

// File returns the likeliest name of the inner shim's file.
func (n Name) File() string { return n.Files()[0] }

// Link returns the file name under which shimtrace wraps the shim.
func (n Name) Link() string {
	if n.Version == "" {
		return prefix + n.Inner + traced
	}
	return prefix + n.Inner + traced + "-" + n.Version
}

// RuntimeType returns the type for which containerd runs Link. It contains the inner
// shim's name: containerd's CRI plugin and Kata's tools look for "kata".
func (n Name) RuntimeType() string {
	if n.Version == "" {
		return "io.containerd." + n.Inner + ".traced"
	}
	return "io.containerd." + n.Inner + traced + "." + n.Version
}

// String returns the inner shim's name, with its version unless that is v2.
func (n Name) String() string {
	if n.Version == "" || n.Version == "v2" {
		return n.Inner
	}
	return n.Inner + "-" + n.Version
}

// Runc is containerd's own shim.
var Runc = Name{Inner: "runc", Version: "v2"}

// RuncWithOptions is the same shim under a link of its own. Clients give runc's
// options, such as SystemdCgroup, only to runtime types that begin with
// "io.containerd.runc." (nerdctl's generateRuntimeCOpts in
// pkg/cmd/container/run_runtime.go), as this one does.
var RuncWithOptions = Name{Inner: "runc"}
