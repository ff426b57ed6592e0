// Package manpage writes the manual pages of a command-line program from the same
// description that its --help prints (man(7)).
package manpage

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"
)

// Header is what all pages have in common.
type Header struct {
	// Version of the program, and Date of that version, as 2026-08-21.
	Version, Date string
}

// Write writes a page for the program, and one for each command that is not hidden, into
// a directory. It returns their file names.
func Write(dir string, app *cli.Command, h Header) (names []string, err error) {
	pages := []*cli.Command{app}
	for _, c := range app.Commands {
		if !c.Hidden {
			pages = append(pages, c)
		}
	}
	for _, c := range pages {
		name := pageName(app, c)
		if err := os.WriteFile(filepath.Join(dir, name+".1"), []byte(page(app, c, h)), 0o644); err != nil {
			return nil, err
		}
		names = append(names, name+".1")
	}
	return names, nil
}

func pageName(app, c *cli.Command) string {
	if c == app {
		return app.Name
	}
	return app.Name + "-" + c.Name
}

func page(app, c *cli.Command, h Header) string {
	var b strings.Builder
	name := pageName(app, c)
	fmt.Fprintf(&b, ".TH %s 1 %s %s\n", quote(strings.ToUpper(name)), quote(h.Date), quote(app.Name+" "+h.Version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(name), escape(c.Usage))
	b.WriteString(".SH SYNOPSIS\n")
	if c == app {
		fmt.Fprintf(&b, "\\fB%s\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]\n", escape(app.Name))
	} else {
		fmt.Fprintf(&b, "\\fB%s %s\\fR [\\fIOPTIONS\\fR] %s\n", escape(app.Name), escape(c.Name), escape(c.ArgsUsage))
	}
	description(&b, c.Description)
	if c == app {
		commands(&b, app)
	}
	options(&b, c.Flags)
	if c != app {
		fmt.Fprintf(&b, ".SH SEE ALSO\n.BR %s (1)\n", escape(app.Name))
	}
	return b.String()
}

// description writes the text; examples stand as they are.
func description(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	b.WriteString(".SH DESCRIPTION\n")
	example := false
	for line := range strings.SplitSeq(text, "\n") {
		isExample := strings.HasPrefix(line, "   ")
		switch {
		case line == "Examples:" || line == "Example:":
			b.WriteString(".SH EXAMPLES\n")
			continue
		case isExample && !example:
			b.WriteString(".nf\n")
		case !isExample && example:
			b.WriteString(".fi\n")
		}
		example = isExample
		if line == "" {
			b.WriteString(".PP\n")
			continue
		}
		b.WriteString(escape(strings.TrimSpace(line)) + "\n")
	}
	if example {
		b.WriteString(".fi\n")
	}
}

func commands(b *strings.Builder, app *cli.Command) {
	b.WriteString(".SH COMMANDS\n")
	for _, c := range app.Commands {
		if !c.Hidden {
			fmt.Fprintf(b, ".TP\n\\fB%s\\fR\n%s: see\n.BR %s (1)\n", escape(c.Name), escape(c.Usage), escape(pageName(app, c)))
		}
	}
}

func options(b *strings.Builder, flags []cli.Flag) {
	heading := ".SH OPTIONS\n"
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, hides := f.(cli.VisibleFlag); !ok || hides && !v.IsVisible() {
			continue
		}
		_ = f.PreParse() // the value is the default then
		value, usage := unquote(d.GetUsage())
		var names []string
		for _, n := range f.Names() {
			dashes := "--"
			if len(n) == 1 {
				dashes = "-"
			}
			names = append(names, "\\fB"+escape(dashes+n)+"\\fR")
		}
		b.WriteString(heading + ".TP\n" + strings.Join(names, ", "))
		heading = ""
		if d.TakesValue() {
			if value == "" {
				value = "VALUE"
			}
			b.WriteString(" \\fI" + escape(value) + "\\fR")
		}
		b.WriteString("\n" + escape(usage))
		if s := d.GetValue(); d.TakesValue() && d.IsDefaultVisible() && s != "" && !strings.Contains(usage, "default") {
			b.WriteString(" (default: " + escape(s) + ")")
		}
		b.WriteByte('\n')
	}
}

// unquote returns the word between backquotes, which is the value's name, and the text
// without the backquotes.
func unquote(usage string) (value, text string) {
	before, rest, ok := strings.Cut(usage, "`")
	value, after, closed := strings.Cut(rest, "`")
	if !ok || !closed {
		return "", usage
	}
	return value, before + value + after
}

// escape keeps text from being taken for requests or escapes.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

func quote(text string) string { return `"` + strings.ReplaceAll(escape(text), `"`, `""`) + `"` }
