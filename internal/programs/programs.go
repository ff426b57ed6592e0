// Package programs tells what a file is: a program that can be executed, or one of
// shimtrace's. install and doctor must agree on it.
package programs

import (
	"debug/buildinfo"
	"os/exec"
	"path/filepath"
	"strings"
)

// module is the module path in shimtrace's programs.
const module = "github.com/shimtrace/shimtrace"

// Ours reports whether a file is a program built from this module.
func Ours(path string) bool {
	info, err := buildinfo.ReadFile(path)
	return err == nil && info.Main.Path == module
}

// Executable reports whether a path, which PATH does not complete, is that of a program.
func Executable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil && strings.ContainsRune(path, filepath.Separator)
}

// Find returns the program of a name in the directories of a root's PATH, as a path for
// when the root is "/"; empty if there is none.
func Find(root string, path []string, name string) string {
	for _, dir := range path {
		if p := filepath.Join(dir, name); Executable(filepath.Join(root, p)) {
			return p
		}
	}
	return ""
}
