package install

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
)

// writeSnippets prints what to add to containerd's configuration and to shimtrace's.
func writeSnippets(w io.Writer, runtimes []tracedRuntime) error {
	var b bytes.Buffer
	var done []section
	for _, r := range runtimes {
		for _, s := range r.Sections {
			if where := (section{File: s.File, Version: s.Version}); !slices.Contains(done, where) {
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
	_, err := w.Write(b.Bytes())
	return err
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
