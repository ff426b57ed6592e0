package relays

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Upgrade moves the relays of a state directory to another program.
type Upgrade struct {
	Dir, Program string
	// DryRun only asks whether they could be moved. JSON prints an object for each
	// relay.
	DryRun, JSON bool
	Out          io.Writer
}

// checkTime bounds how long the program may take to print its protocol version, and the
// new guard to know all relays.
const checkTime = 10 * time.Second

// Run moves one relay after another, and prints how each went.
func (u Upgrade) Run(ctx context.Context) error {
	if err := u.check(ctx); err != nil {
		return err
	}
	_, all, err := guard.Ask(ctx, u.Dir)
	if err != nil {
		return console.NothingFound("no relay can be moved: %w: relays start a guard when a sandbox starts, unless they are older than it", err)
	}
	if len(all) == 0 {
		return console.NothingFound("no traced sandbox is guarded: there is nothing to move")
	}
	slices.SortFunc(all, func(a, b guard.Status) int { return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.ID, b.ID)) })
	if !u.DryRun {
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
		pause, err := guard.UpgradeRelay(ctx, u.Dir, r.ID, u.Program, u.DryRun)
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

// ended reports whether a relay has ended meanwhile, with its sandbox.
func (u Upgrade) ended(ctx context.Context, id string) bool {
	_, all, err := guard.Ask(ctx, u.Dir)
	return err == nil && !slices.ContainsFunc(all, func(r guard.Status) bool { return r.ID == id })
}

// check asks the program which guard protocol it speaks. A program without guards would
// pass the command to the inner shim.
func (u Upgrade) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, u.Program, "guard", "-check").Output()
	version, perr := strconv.Atoi(strings.TrimSpace(string(out)))
	switch err = errors.Join(err, perr); {
	case err != nil:
		return fmt.Errorf("%s cannot take relays over: it is not this shim, or of a version that could not do that: %w", u.Program, err)
	case version < guard.Version:
		return fmt.Errorf("%s cannot take relays over: its guard speaks version %d, theirs version %d", u.Program, version, guard.Version)
	}
	return nil
}

// replaceGuard replaces the guard by one of the program and waits until it has all that all
// relays have to say.
func (u Upgrade) replaceGuard(ctx context.Context, relays int) error {
	if err := guard.Replace(ctx, u.Dir, u.Program); err != nil {
		return fmt.Errorf("the guard is not replaced: %w", err)
	}
	for end := time.Now().Add(checkTime); ; {
		_, all, err := guard.Ask(ctx, u.Dir)
		switch {
		case err == nil && guarded(all) >= relays, ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end) && err != nil:
			return fmt.Errorf("the guard that was to replace the last one: %w", err)
		case time.Now().After(end):
			return nil // some have ended; the others are reported by name
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// guarded counts the relays that could be moved now.
func guarded(all []guard.Status) (n int) {
	for _, r := range all {
		if r.Guarded {
			n++
		}
	}
	return n
}

// upgradeJSON is a relay for scripts.
type upgradeJSON struct {
	Sandbox string `json:"sandbox"`
	Pod     string `json:"pod,omitempty"`
	PID     int    `json:"old_pid"`
	Build   string `json:"old_build,omitempty"`
	Program string `json:"program"`
	// DryRun: it was not moved, only asked.
	DryRun bool `json:"dry_run,omitempty"`
	// Pause is how long nothing was relayed, at most.
	Pause float64 `json:"pause_ms,omitempty"`
	Error string  `json:"error,omitempty"`
}

func (u Upgrade) report(n, of int, r guard.Status, took, pause time.Duration, failure error) error {
	if u.JSON {
		o := upgradeJSON{Sandbox: r.Sandbox, Pod: r.Pod, PID: r.PID, Build: r.Build, Program: u.Program, DryRun: u.DryRun, Pause: pause.Seconds() * 1000}
		if failure != nil {
			o.Error = failure.Error()
		}
		return json.NewEncoder(u.Out).Encode(o)
	}
	name := r.Pod
	if name == "" {
		name = waterfall.ShortID(r.Sandbox)
	}
	what := fmt.Sprintf("moved in %s, paused for %s", took.Round(time.Millisecond), pause.Round(100*time.Microsecond))
	switch {
	case failure != nil:
		what = "not moved: " + failure.Error()
	case u.DryRun:
		what = "could be moved"
	}
	_, err := fmt.Fprintf(u.Out, "%*d/%d %s: %s\n", len(strconv.Itoa(of)), n, of, waterfall.Clean(name), waterfall.Clean(what))
	return err
}
