package manpage

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"
)

// TestWrite: a page has what --help has, and nothing in it is taken for a request.
func TestWrite(t *testing.T) {
	app := &cli.Command{
		Name: "tool", Usage: "does things",
		Commands: []*cli.Command{
			{
				Name: "go", Usage: "goes", ArgsUsage: "WHERE", Description: ".hidden is a file\nof C:\\.\n\nExamples:\n   tool go   there\n",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "to", Aliases: []string{"t"}, Value: "there", Usage: "go to `PLACE`"},
					&cli.BoolFlag{Name: "fast", Usage: "run"},
					&cli.StringFlag{Name: "secret", Hidden: true},
				},
			},
			{Name: "no", Hidden: true},
		},
	}
	dir := t.TempDir()
	names, err := Write(dir, app, Header{Version: "1.2", Date: "2026-08-21"})
	if err != nil || strings.Join(names, " ") != "tool.1 tool-go.1" {
		t.Fatal(names, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "tool-go.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		".TH \"TOOL\\-GO\" 1 \"2026\\-08\\-21\" \"tool 1.2\"\n.SH NAME\ntool\\-go \\- goes\n",
		"\n\\&.hidden is a file\nof C:\\e.\n", ".SH EXAMPLES\n.nf\ntool go   there\n.fi\n",
		".TP\n\\fB\\-\\-to\\fR, \\fB\\-t\\fR \\fIPLACE\\fR\ngo to PLACE (default: \"there\")\n", "\\fB\\-\\-fast\\fR\nrun\n", ".BR tool (1)\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "secret") {
		t.Error("it has what is hidden")
	}
	if text, err := os.ReadFile(filepath.Join(dir, "tool.1")); err != nil || !strings.Contains(string(text), ".TP\n\\fBgo\\fR\ngoes: see\n.BR tool\\-go (1)\n") {
		t.Errorf("%v: %s", err, text)
	}
}
