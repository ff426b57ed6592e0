package containerd

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/shimtrace/shimtrace/internal/sleep"
)

// The parts of systemd's interface (org.freedesktop.systemd1(5)).
const (
	systemd     = "org.freedesktop.systemd1"
	manager     = systemd + ".Manager"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
)

// errNoUnit means that systemd runs none of the units.
var errNoUnit = errors.New("systemd runs none of the units")

// Restart restarts the first of the systemd units that is active, and waits until that is
// done. It speaks with systemd over the system's bus, and needs no systemctl.
func Restart(ctx context.Context, units []string) error {
	bus, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("restart containerd: the system's bus, to ask systemd: %w", err)
	}
	defer bus.Close()
	ask := bus.Object(systemd, managerPath)
	unit := ""
	for _, u := range units {
		if active(ctx, bus, u) {
			unit = u
			break
		}
	}
	if unit == "" {
		return fmt.Errorf("restart containerd: %w (%s)", errNoUnit, strings.Join(units, ", "))
	}
	if err := bus.AddMatchSignalContext(ctx, dbus.WithMatchInterface(manager), dbus.WithMatchMember("JobRemoved")); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	signals := make(chan *dbus.Signal, 64)
	bus.Signal(signals)
	if err := ask.CallWithContext(ctx, manager+".Subscribe", 0).Err; err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	var job dbus.ObjectPath
	if err := ask.CallWithContext(ctx, manager+".RestartUnit", 0, unit, "replace").Store(&job); err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	result, err := done(ctx, signals, job)
	if err == nil && result != "done" {
		err = fmt.Errorf("systemd says %q: journalctl -u %s tells why", result, unit)
	}
	if err != nil {
		return fmt.Errorf("restart %s: %w", unit, err)
	}
	return nil
}

// active reports whether a unit runs.
func active(ctx context.Context, bus *dbus.Conn, unit string) bool {
	var path dbus.ObjectPath
	if bus.Object(systemd, managerPath).CallWithContext(ctx, manager+".GetUnit", 0, unit).Store(&path) != nil {
		return false // not loaded
	}
	var state dbus.Variant
	err := bus.Object(systemd, path).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, systemd+".Unit", "ActiveState").Store(&state)
	return err == nil && state.Value() == "active"
}

// done waits for a job's end and returns its result.
func done(ctx context.Context, signals <-chan *dbus.Signal, job dbus.ObjectPath) (result string, err error) {
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case s, open := <-signals:
			if !open {
				return "", errors.New("the system's bus is gone")
			}
			// JobRemoved: id, path of the job, unit, result.
			if len(s.Body) == 4 && s.Body[1] == job {
				result, _ = s.Body[3].(string)
				return result, nil
			}
		}
	}
}

// RestartWith restarts containerd by a command of the operator's, for the shell.
func RestartWith(ctx context.Context, command string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("restart containerd: %s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// lookEvery is the pause between two looks at CRI.
const lookEvery = 100 * time.Millisecond

// Await waits until the CRI at a socket has loaded handlers as wanted, or ctx is done. It
// returns what is missing then.
func Await(ctx context.Context, socket string, want []Handler) error {
	for {
		err := loaded(ctx, socket, want)
		if err == nil {
			return nil
		}
		if !sleep.For(ctx, lookEvery) {
			return err
		}
	}
}

func loaded(ctx context.Context, socket string, want []Handler) error {
	// Not ctx: its end is to leave the reason.
	has, err := Handlers(context.WithoutCancel(ctx), socket)
	if err != nil {
		return err
	}
	for _, w := range want {
		switch h, ok := has[w.Name]; {
		case !ok:
			return fmt.Errorf("CRI at %s has not loaded handler %s", socket, w.Name)
		case h != w:
			return fmt.Errorf("CRI at %s has handler %s with the shim %s %s, not %s %s", socket, w.Name, h.Type, h.Path, w.Type, w.Path)
		}
	}
	return nil
}
