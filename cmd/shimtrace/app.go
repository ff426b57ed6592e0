package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
)

// host is the commands' environment.
type host struct {
	stdout, stderr io.Writer
	getenv         func(string) string
	// executable returns the path of the running tool, links resolved.
	executable func() (string, error)
	// root is the directory below which Kata is looked for.
	root string
}

// run executes the command line and returns the exit code. Errors go to stderr.
func run(ctx context.Context, h *host, args []string) int {
	err := newApp(h).Run(ctx, args)
	if err == nil {
		return console.OK
	}
	fmt.Fprintf(h.stderr, "shimtrace: %v\n", err)
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return max(coded.ExitCode(), console.Failure)
	}
	return console.Failure
}

func newApp(h *host) *cli.Command {
	app := &cli.Command{
		Name:  "shimtrace",
		Usage: "trace containerd's shims and see where a pod's time goes",
		Description: "Exit codes: 0 ok, 1 failure, 2 wrong usage, 3 nothing found.\n\n" +
			"Settings: " + configHint(),
		Commands: append([]*cli.Command{
			installCommand(h), doctorCommand(h), listCommand(h), showCommand(h), statsCommand(h), explainCommand(h), onCommand(h), offCommand(h), statusCommand(h), upgradeCommand(h), forwardCommand(h), versionCommand(h), manCommand(h),
		}, collectCommands(h)...),
		EnableShellCompletion: true,
		HideHelpCommand:       true,
		Suggest:               true,
		Writer:                h.stdout,
		ErrWriter:             h.stderr,
		// Only run prints errors and maps them to exit codes.
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
		Action: func(_ context.Context, c *cli.Command) error {
			if c.Args().Present() {
				return console.UsageError("there is no command %q; see shimtrace --help", c.Args().First())
			}
			return cli.ShowRootCommandHelp(c)
		},
	}
	wrongUsage := func(_ context.Context, c *cli.Command, err error, _ bool) error {
		return console.UsageError("%w; see %s --help", err, c.FullName())
	}
	app.OnUsageError = wrongUsage
	for _, c := range app.Commands {
		c.OnUsageError = wrongUsage
	}
	return app
}

func configHint() string {
	return "/etc/shimtrace/config.toml or the file that SHIMTRACE_CONFIG names; see docs/configuration.md."
}

// noArguments returns an error if a command without arguments got one.
func noArguments(c *cli.Command) error {
	if c.Args().Present() {
		return console.UsageError("%s takes no argument, got %q", c.FullName(), c.Args().First())
	}
	return nil
}

func (h *host) warn(format string, args ...any) {
	fmt.Fprintf(h.stderr, "shimtrace: "+format+"\n", args...)
}

func system() *host {
	return &host{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, executable: resolvedExecutable, root: "/"}
}

// resolvedExecutable returns the running program's file, links resolved. Without /proc, as
// in the root of an image, it is the one that the command line names.
func resolvedExecutable() (string, error) {
	p, err := os.Executable()
	if errors.Is(err, fs.ErrNotExist) {
		if p, err = exec.LookPath(os.Args[0]); err == nil {
			p, err = filepath.Abs(p)
		}
	}
	if err == nil {
		p, err = filepath.EvalSymlinks(p)
	}
	return p, err
}
