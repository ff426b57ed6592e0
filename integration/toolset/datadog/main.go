//go:build ignore

// Program datadog is the part of the Datadog Agent that receives OTLP and sends traces to
// Datadog, with a server in Datadog's place that writes each span it gets, a line of JSON
// each, to the file in its first argument.
//
// In the Agent, an OpenTelemetry Collector takes OTLP from outside and hands it on to this
// part at a port of its own, 5003.
package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	compression "github.com/DataDog/datadog-agent/comp/trace/compression/impl-gzip"
	"github.com/DataDog/datadog-agent/pkg/opentelemetry-mapping-go/otlp/attributes"
	pb "github.com/DataDog/datadog-agent/pkg/proto/pbgo/trace"
	"github.com/DataDog/datadog-agent/pkg/trace/agent"
	"github.com/DataDog/datadog-agent/pkg/trace/config"
	"github.com/DataDog/datadog-agent/pkg/trace/telemetry"
	"github.com/DataDog/datadog-go/v5/statsd"
	"go.opentelemetry.io/collector/component/componenttest"
)

const apiKey = "0123456789abcdef0123456789abcdef"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "datadog:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string) error {
	out, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(l, &intake{out: json.NewEncoder(out)})

	cfg := config.New()
	cfg.Hostname = "agents-host"
	cfg.Endpoints = []*config.Endpoint{{Host: "http://" + l.Addr().String(), APIKey: apiKey}}
	cfg.ReceiverEnabled = false // of Datadog's own tracers
	cfg.OTLPReceiver.BindHost = "127.0.0.1"
	cfg.OTLPReceiver.GRPCPort = 5003
	if cfg.OTLPReceiver.AttributesTranslator, err = attributes.NewTranslator(componenttest.NewNopTelemetrySettings()); err != nil {
		return err
	}
	agent.NewAgent(ctx, cfg, telemetry.NewNoopCollector(), new(statsd.NoOpClient), compression.NewComponent()).Run()
	return nil
}

// intake is Datadog's API for Agents, as far as it concerns traces.
type intake struct {
	mu  sync.Mutex
	out *json.Encoder
}

// A line is a span, and what Datadog gets with it.
type line struct {
	Host, Env, ContainerID string
	Tags                   map[string]string // of the spans of one resource
	Priority               int32
	Span                   *pb.Span
}

func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/api/v0.2/traces" {
		if err := i.take(r); err != nil {
			fmt.Fprintln(os.Stderr, "datadog:", err)
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

func (i *intake) take(r *http.Request) error {
	if got := r.Header.Get("DD-Api-Key"); got != apiKey {
		return fmt.Errorf("the key is %q", got)
	}
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	var payload pb.AgentPayload
	if err := payload.UnmarshalVT(body); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, t := range payload.TracerPayloads {
		for _, c := range t.Chunks {
			for _, s := range c.Spans {
				if err := i.out.Encode(line{t.Hostname, t.Env, t.ContainerID, t.Tags, c.Priority, s}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
