package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

func upgradeCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "upgrade",
		Usage: "move running relays to the installed shim, without touching their pods",
		Description: "Each relay stops between two frames, and a process of the installed program goes on with its\n" +
			"connections and its trace: no call fails, and each waits some milliseconds at most. A program that\n" +
			"cannot take over what a relay has is refused, and the relay goes on as it is. Relays of sandboxes\n" +
			"that start later are of the installed program anyway.\n\n" +
			"Exit codes: 0 all were moved, 1 some were not, 3 there is none.\n\n" +
			"Examples:\n   shimtrace upgrade --dry-run\n   shimtrace upgrade\n   shimtrace upgrade --json | jq 'select(.error)'",
		Flags: append(switchFlags(),
			&cli.BoolFlag{Name: "dry-run", Usage: "only ask the installed program whether it could take over"},
			&cli.StringFlag{Name: "program", Usage: "move them to the shim at `PATH` (default: the one beside this tool)"},
		),
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			dir := c.String("state-dir")
			if dir == "" {
				dir = h.config("").Relay.StateDir
			}
			program, err := h.newShim(c.String("program"))
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			u := upgrade{host: h, dir: dir, program: program, dryRun: c.Bool("dry-run"), json: c.Bool("json")}
			return u.run(ctx)
		},
	}
}

// newShim returns the program that relays are to become.
func (h *host) newShim(named string) (string, error) {
	if named == "" {
		self, err := h.executable()
		if err != nil {
			return "", err
		}
		named = filepath.Join(filepath.Dir(self), shimname.Program)
	}
	path, err := exec.LookPath(named)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("the shim to move relays to: %w: name it with --program", err)
	}
	return path, nil
}

// upgrade moves the relays of a state directory to a program.
type upgrade struct {
	*host
	dir, program string
	dryRun, json bool
}

// checkTime bounds how long the program may take to say which protocol it speaks, and a
// guard how long to have all relays.
const checkTime = 10 * time.Second

func (u upgrade) run(ctx context.Context) error {
	if err := u.check(ctx); err != nil {
		return err
	}
	_, all, err := guard.Ask(ctx, u.dir)
	if err != nil {
		return console.NothingFound("no relay can be moved: %w: relays start a guard when a sandbox starts, unless they are older than it", err)
	}
	if len(all) == 0 {
		return console.NothingFound("no traced sandbox is guarded: there is nothing to move")
	}
	slices.SortFunc(all, func(a, b guard.Status) int { return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.ID, b.ID)) })
	if !u.dryRun {
		if err := u.replaceGuard(ctx, len(all)); err != nil {
			return err
		}
	}
	failed := 0
	for i, r := range all {
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d relays are not moved: %w", len(all)-i+failed, len(all), context.Cause(ctx))
		}
		began := time.Now()
		pause, err := guard.UpgradeRelay(ctx, u.dir, r.ID, u.program, u.dryRun)
		if err != nil && u.ended(ctx, r.ID) {
			continue
		}
		if err != nil {
			failed++
		}
		if err := u.report(i+1, len(all), r, time.Since(began), pause, err); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d relays are not moved; they go on as they are", failed, len(all))
	}
	return nil
}

// ended reports whether a relay has gone meanwhile, with its sandbox.
func (u upgrade) ended(ctx context.Context, id string) bool {
	_, all, err := guard.Ask(ctx, u.dir)
	return err == nil && !slices.ContainsFunc(all, func(r guard.Status) bool { return r.ID == id })
}

// check has the program say that it knows guards at all: one of before would take the
// command for one of the inner shim's.
func (u upgrade) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, u.program, "guard", "-check").Output()
	version, perr := strconv.Atoi(strings.TrimSpace(string(out)))
	switch err = errors.Join(err, perr); {
	case err != nil:
		return fmt.Errorf("%s cannot take relays over: it is not this shim, or of a version that could not do that: %w", u.program, err)
	case version < guard.Version:
		return fmt.Errorf("%s cannot take relays over: its guard speaks version %d, theirs version %d", u.program, version, guard.Version)
	}
	return nil
}

// replaceGuard has the guard become one of the program, which is to know all relays then.
func (u upgrade) replaceGuard(ctx context.Context, relays int) error {
	if err := guard.Replace(ctx, u.dir, u.program); err != nil {
		return fmt.Errorf("the guard is not replaced: %w", err)
	}
	for end := time.Now().Add(checkTime); ; {
		_, all, err := guard.Ask(ctx, u.dir)
		switch {
		case err == nil && len(all) >= relays, ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end) && err != nil:
			return fmt.Errorf("the guard that was to replace the last one: %w", err)
		case time.Now().After(end):
			return nil // some have ended meanwhile; the others are told by name
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// upgradeJSON is a relay as scripts read it.
type upgradeJSON struct {
	Sandbox string `json:"sandbox"`
	Pod     string `json:"pod,omitempty"`
	PID     int    `json:"old_pid"`
	Build   string `json:"old_build,omitempty"`
	Program string `json:"program"`
	// DryRun: it was only asked whether it could be.
	DryRun bool `json:"dry_run,omitempty"`
	// Pause is how long nobody relayed, at most.
	Pause float64 `json:"pause_ms,omitempty"`
	Error string  `json:"error,omitempty"`
}

func (u upgrade) report(n, of int, r guard.Status, took, pause time.Duration, failure error) error {
	if u.json {
		o := upgradeJSON{Sandbox: r.Sandbox, Pod: r.Pod, PID: r.PID, Build: r.Build, Program: u.program, DryRun: u.dryRun, Pause: pause.Seconds() * 1000}
		if failure != nil {
			o.Error = failure.Error()
		}
		return json.NewEncoder(u.stdout).Encode(o)
	}
	name := r.Pod
	if name == "" {
		name = waterfall.ShortID(r.Sandbox)
	}
	what := fmt.Sprintf("moved in %s, paused for %s", took.Round(time.Millisecond), pause.Round(100*time.Microsecond))
	switch {
	case failure != nil:
		what = "not moved: " + failure.Error()
	case u.dryRun:
		what = "could be moved"
	}
	_, err := fmt.Fprintf(u.stdout, "%*d/%d %s: %s\n", len(strconv.Itoa(of)), n, of, waterfall.Clean(name), waterfall.Clean(what))
	return err
}
