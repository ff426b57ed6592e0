package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Result is what one run of a client gave.
type Result struct {
	Args   []string // the program and its arguments
	Stdout string
	Stderr string
	Code   int // exit status, -1 if it did not exit by itself
	Took   time.Duration
	Err    error // nil if the program ran and exited, whatever its status
}

// Check is nil if the program exited with status 0; otherwise it says what ran
// and what it printed.
func (res Result) Check() error {
	if res.Err == nil && res.Code == 0 {
		return nil
	}
	err := res.Err
	if err == nil {
		err = fmt.Errorf("exit status %d", res.Code)
	}
	return fmt.Errorf("%s: %w\nstdout: %s\nstderr: %s", strings.Join(res.Args, " "), err, res.Stdout, res.Stderr)
}

// Out is the standard output without the white space around it.
func (res Result) Out() string { return strings.TrimSpace(res.Stdout) }

// Fields is the words of the standard output.
func (res Result) Fields() []string { return strings.Fields(res.Stdout) }

// Ctr runs ctr in the namespace [Rig.Name]. It names its containers itself:
// an id may be used once at a time in a rig.
func (r *Rig) Ctr(args ...string) Result {
	return r.run(context.Background(), "ctr", args...)
}

// Hear ends the script of a process whose last words a client is to print: it goes on
// when they were heard. ctr and nerdctl, when they are kept busy, lose what a process
// says just before its end, whatever the shim.
const Hear = "; read _"

// A Talk is what a process is told on its standard input, and the words to wait for
// before it is let go on past [Hear].
type Talk struct {
	Say  string
	Hear []string
}

// CtrHearing runs ctr with a process whose script has [Hear] in it, and lets that go on
// once ctr has printed all the words.
func (r *Rig) CtrHearing(words []string, args ...string) Result {
	return r.Talk(Talk{Hear: words}, "ctr", args...)
}

// Talk runs "ctr" or "nerdctl" with such a process.
func (r *Rig) Talk(with Talk, program string, args ...string) Result {
	if program == "nerdctl" {
		args = r.nerdctlArgs(args...)
	}
	failed := Result{Args: append([]string{program}, args...), Code: -1}
	stdin, tell, err := os.Pipe()
	if failed.Err = err; err != nil {
		return failed
	}
	defer stdin.Close()
	defer tell.Close()
	if _, failed.Err = tell.WriteString(with.Say); failed.Err != nil {
		return failed
	}
	e := &ear{words: with.Hear, heard: func() { tell.WriteString("\n") }}
	return r.runWith(context.Background(), stdin, e, program, args...)
}

// An ear waits for words in what a client prints.
type ear struct {
	words []string
	heard func()

	mu   sync.Mutex
	text strings.Builder
}

func (e *ear) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.Write(b)
	for _, w := range e.words {
		if !strings.Contains(e.text.String(), w) {
			return len(b), nil
		}
	}
	if e.heard != nil {
		e.heard()
		e.heard = nil
	}
	return len(b), nil
}

// Nerdctl runs nerdctl in the namespace [Rig.Name], with networks of the rig's
// own. Use --net none or --net [Network].
func (r *Rig) Nerdctl(args ...string) Result {
	return r.run(context.Background(), "nerdctl", r.nerdctlArgs(args...)...)
}

func (r *Rig) nerdctlArgs(args ...string) []string {
	return append([]string{
		"--cni-path=" + cniPlugins,
		"--cni-netconfpath=" + filepath.Join(r.Dir, "cni.d"),
		"--data-root=" + filepath.Join(r.Dir, "nerdctl"),
	}, args...)
}

// Crictl runs crictl on the rig's CRI. [Rig.RunPod] makes the files it wants.
func (r *Rig) Crictl(args ...string) Result {
	return r.run(context.Background(), "crictl", r.crictlArgs(args...)...)
}

func (r *Rig) crictlArgs(args ...string) []string {
	endpoint := "unix://" + r.Address()
	options := append([]string{
		"--config=" + filepath.Join(r.Dir, "crictl.yaml"),
		"--runtime-endpoint=" + endpoint,
		"--image-endpoint=" + endpoint,
	}, r.opts.CrictlArgs...)
	return append(options, args...)
}

// run runs a client for as long as the rig's timeout.
func (r *Rig) run(ctx context.Context, program string, args ...string) Result {
	return r.runWith(ctx, nil, io.Discard, program, args...)
}

// runWith does so with a standard input, and shows also what is printed as it comes.
func (r *Rig) runWith(ctx context.Context, stdin *os.File, also io.Writer, program string, args ...string) Result {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := r.Command(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, also), io.MultiWriter(&stderr, also)
	if stdin != nil {
		cmd.Stdin = stdin
	}
	start := time.Now()
	err := cmd.Run()
	res := Result{
		Args:   append([]string{program}, args...),
		Stdout: stdout.String(),
		Stderr: stderr.String(),
		Code:   cmd.ProcessState.ExitCode(), // -1 too if it never started
		Took:   time.Since(start),
		Err:    err,
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		res.Err = fmt.Errorf("not done after %s: %w", res.Took.Round(time.Millisecond), ctx.Err())
	case errors.As(err, &exit) && res.Code >= 0:
		res.Err = nil
	}
	return res
}
