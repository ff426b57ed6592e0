package main

import (
	"io"
	"net/http"
	"net/http/httptest"
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
