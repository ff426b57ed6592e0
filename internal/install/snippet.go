package install

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
)

// writeSnippets prints what is left to add to containerd's configuration and to
// shimtrace's.
func (in *installer) writeSnippets(runtimes []tracedRuntime, restarted bool) error {
	var b bytes.Buffer
	in.writeWritten(&b, runtimes, restarted)
	type edited struct {
		file    string
		version int
	}
	var done []edited
	for _, r := range runtimes {
		for _, s := range r.Sections {
			if in.writes(s.config) {
				continue
			}
			if where := (edited{s.File, s.Version}); !slices.Contains(done, where) {
				done = append(done, where)
				writeFile(&b, s, runtimes)
			}
		}
	}
	b.WriteString("\nctr and nerdctl need no configuration:\n\n")
	var last string
	for _, r := range runtimes {
		if r.ClientType != last {
			fmt.Fprintf(&b, "  nerdctl run --runtime %s …\n", r.ClientType)
		}
		last = r.ClientType
	}
	heading := "\nFor " + config.DefaultPath + ", since these shims are not on PATH:\n"
	last = ""
	for _, r := range runtimes {
		if r.Shim != "" && r.Inner != last {
			fmt.Fprintf(&b, "%s\n[runtime.%s]\nshim = %q\n", heading, r.Inner, r.Shim)
			heading, last = "", r.Inner
		}
	}
	b.WriteString("\nThen: shimtrace list, shimtrace show\n")
	_, err := in.out.Write(b.Bytes())
	return err
}

// writeWritten says what containerd's configuration has now.
func (in *installer) writeWritten(b *bytes.Buffer, runtimes []tracedRuntime, restarted bool) {
	var names []string
	for _, r := range runtimes {
		if slices.ContainsFunc(r.Sections, func(s section) bool { return in.writes(s.config) }) && !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	switch {
	case len(names) == 0 || in.opts.DryRun:
	case restarted:
		fmt.Fprintf(b, "\ncontainerd has been restarted, and its CRI has loaded: %s\n", strings.Join(names, ", "))
	default:
		fmt.Fprintf(b, "\nAfter its next restart containerd has the handlers: %s\n", strings.Join(names, ", "))
	}
}

// writeFile prints the sections of all runtimes for one file.
func writeFile(b *bytes.Buffer, at section, runtimes []tracedRuntime) {
	does := "add to"
	if at.New {
		does = "make"
	}
	fmt.Fprintf(b, "\nFor Kubernetes, %s %s and restart containerd (version = %d%s):\n", does, at.File, at.Version, eraOf(at.Version))
	if at.New && strings.HasSuffix(at.File, ".tmpl") {
		b.WriteString("\n{{ template \"base\" . }}\n")
	} else if at.New {
		fmt.Fprintf(b, "\nversion = %d\n", at.Version)
	}
	for _, r := range runtimes {
		for _, s := range r.Sections {
			if s.File == at.File && s.Version == at.Version {
				b.WriteString("\n" + s.Text)
			}
		}
	}
}

// eraOf returns the containerd that writes files of that version.
func eraOf(version int) string {
	if version >= 3 {
		return ", containerd 2.x"
	}
	return ", containerd 1.x"
}
