package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/shimtrace/shimtrace/export/journal"
)

func TestShipNowhere(t *testing.T) {
	command(t, nil, "ship", "--journal", t.TempDir()).want(t, exitFailure, "", "OTEL_EXPORTER_OTLP_ENDPOINT")
}

// TestShipOnce ships a journal to a collector that takes everything, and finds
// nothing to do the second time.
func TestShipOnce(t *testing.T) {
	var uploads atomic.Int32
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/traces" {
			uploads.Add(1)
		}
	}))
	defer collector.Close()
	dir := writeJournal(t, shown...)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL) // read by the client itself
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL}
	command(t, env, "ship", "--journal", dir, "--once").want(t, exitOK, "", "8 spans shipped")
	if uploads.Load() == 0 {
		t.Error("the collector got nothing")
	}
	command(t, env, "ship", "--journal", dir, "--once").want(t, exitOK, "", "0 spans shipped")
}

// TestShipHeld: another shipper is no failure.
func TestShipHeld(t *testing.T) {
	dir := writeJournal(t, shown...)
	lock, err := journal.LockShipping(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
	command(t, env, "ship", "--journal", dir, "--once").want(t, exitOK, "", "another process ships")
}

// TestShipRefusesAnotherUsersDirectory: in it, root would remove and write what the
// user has chosen.
func TestShipRefusesAnotherUsersDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("a directory of another user needs root")
	}
	dir := writeJournal(t, shown...)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
	command(t, env, "ship", "--journal", dir, "--once").want(t, exitFailure, "", "belongs to user 65534")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".seg" {
			t.Errorf("%s was made there", e.Name())
		}
	}
}
