package containerd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// bus starts a bus of the test's own in the place of the system's.
func bus(t *testing.T) *dbus.Conn {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("a bus needs dbus-daemon")
	}
	dir := t.TempDir()
	socket, config := filepath.Join(dir, "bus"), filepath.Join(dir, "bus.conf")
	text := `<busconfig><listen>unix:path=` + socket + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--nofork", "--nopidfile", "--config-file="+config, "--print-address")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 256)); err != nil {
		t.Fatalf("the bus does not start: %v", err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// service is systemd as far as Restart asks it. One unit is active.
type service struct {
	conn *dbus.Conn

	mu        sync.Mutex
	result    string
	restarted []string
}

func (s *service) GetUnit(name string) (dbus.ObjectPath, *dbus.Error) {
	if name == "gone.service" {
		return "", dbus.MakeFailedError(errors.New("not loaded"))
	}
	return "/unit/" + dbus.ObjectPath(strings.TrimSuffix(name, ".service")), nil
}

func (s *service) Subscribe() *dbus.Error { return nil }

func (s *service) RestartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restarted = append(s.restarted, name+" "+mode)
	result := s.result
	go func() {
		_ = s.conn.Emit(managerPath, manager+".JobRemoved", uint32(1), dbus.ObjectPath("/job/1"), "other.service", "failed")
		_ = s.conn.Emit(managerPath, manager+".JobRemoved", uint32(7), dbus.ObjectPath("/job/7"), name, result)
	}()
	return "/job/7", nil
}

type unit string

func (u unit) Get(string, string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant(string(u)), nil
}

func TestRestart(t *testing.T) {
	conn := bus(t)
	s := &service{conn: conn, result: "done"}
	const properties = "org.freedesktop.DBus.Properties"
	for _, err := range []error{
		conn.Export(s, managerPath, manager),
		conn.Export(unit("inactive"), "/unit/k3s", properties),
		conn.Export(unit("active"), "/unit/agent", properties),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.RequestName(systemd, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Restart(ctx, []string{"gone.service", "k3s.service", "agent.service"}); err != nil {
		t.Error(err)
	}
	s.mu.Lock()
	if len(s.restarted) != 1 || s.restarted[0] != "agent.service replace" {
		t.Errorf("restarted: %q", s.restarted)
	}
	s.result = "failed"
	s.mu.Unlock()
	if err := Restart(ctx, []string{"agent.service"}); err == nil || !strings.Contains(err.Error(), `restart agent.service: systemd says "failed"`) {
		t.Errorf("got %v", err)
	}
	if err := Restart(ctx, []string{"gone.service", "k3s.service"}); !errors.Is(err, errNoUnit) {
		t.Errorf("got %v", err)
	}
}

func TestRestartWith(t *testing.T) {
	if err := RestartWith(t.Context(), "true"); err != nil {
		t.Error(err)
	}
	if err := RestartWith(t.Context(), "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("got %v", err)
	}
}

// TestVersions: what containerd's programs state is understood, and compared.
func TestVersions(t *testing.T) {
	dir := t.TempDir()
	for said, want := range map[string]string{
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u2": "1.6.20",
		"containerd github.com/containerd/containerd/v2 v2.4.2 abc":                   "2.4.2",
		"nothing": "",
	} {
		program := filepath.Join(dir, "containerd")
		if err := os.WriteFile(program, []byte("#!/bin/sh\necho '"+said+"'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := Version(program); got != want {
			t.Errorf("%q is version %q, want %q", said, got, want)
		}
	}
	if !Before("1.5.11", Oldest) || Before("1.6.20", Oldest) || Before("", Oldest) || Before("2.4.2", "2.0") || !Before("1.7.35", "2.0") {
		t.Error("versions are compared wrongly")
	}
}

// TestHandlersOf: what CRI gives beside its status is read; what is none is an error.
func TestHandlersOf(t *testing.T) {
	got, err := parseHandlers(`{"containerd":{"runtimes":{"runc":{"runtimeType":"io.containerd.runc.v2","runtimePath":"","options":null}}}}`)
	if want := (Handler{Name: "runc", Type: "io.containerd.runc.v2"}); err != nil || got["runc"] != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseHandlers(""); err == nil {
		t.Error("no error without a configuration")
	}
	if _, err := Handlers(t.Context(), "/nowhere.sock"); err == nil || !strings.Contains(err.Error(), "/nowhere.sock") {
		t.Errorf("got %v", err)
	}
}
