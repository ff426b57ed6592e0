package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/internal/host"
)

// server takes spans, in a process with one core.
type server struct {
	name       string
	grpc, http string // addresses
	cmd        *exec.Cmd
	log        string // file
}

func free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return ""
	}
	defer l.Close()
	return l.Addr().String()
}

// shimtrace is shimtrace collect without the bound on what may arrive.
func shimtrace(program, dir string) *server {
	at := free()
	s := &server{name: "shimtrace", grpc: at, http: at, log: filepath.Join(dir, "shimtrace.log")}
	config, _ := file(dir, "shimtrace.toml", fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n[jaeger]\nreceive = 'off'\n[otlp]\nlisten = [%q]\nbytes_per_second = '8GiB'\n",
		filepath.Join(dir, "run"), filepath.Join(dir, "journal"), at))
	s.cmd = exec.Command(program, "collect", "--service")
	s.cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+config)
	return s
}

const collectorVersion = "v0.120.0"

// builder makes Collectors; newer versions lack modules.
var builder = toolset.Tool{
	Name: "otelcol-builder", Version: collectorVersion,
	Module: "go.opentelemetry.io/collector/cmd/builder", Packages: []string{""},
}

const manifest = `dist: {name: otelcol, output_path: %q, module: example.com/otelcol}
receivers: [{gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v0.120.0}]
exporters: [{gomod: go.opentelemetry.io/collector/exporter/debugexporter v0.120.0}]
providers:
  - {gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider v1.26.0}
  - {gomod: go.opentelemetry.io/collector/confmap/provider/envprovider v1.26.0}
`

const collectorConfig = `receivers: {otlp: {protocols: {grpc: {endpoint: %q}, http: {endpoint: %q}}}}
exporters: {debug: {verbosity: basic}}
service:
  telemetry: {metrics: {level: none}, logs: {level: error}}
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
`

// collector is the OpenTelemetry Collector with its OTLP receiver, and an exporter that
// only counts.
func collector(ctx context.Context, dir string) (*server, error) {
	root, err := toolset.Root()
	if err != nil {
		return nil, err
	}
	made := filepath.Join(root, "otelcol-"+collectorVersion)
	program := filepath.Join(made, "otelcol")
	if _, err := os.Stat(program); err != nil {
		if err := toolset.Build(ctx, root, []toolset.Tool{builder}, os.Stderr); err != nil {
			return nil, err
		}
		source, err := file(dir, "builder.yaml", fmt.Sprintf(manifest, made))
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(os.Stderr, "building the OpenTelemetry Collector, which takes a minute")
		cmd := exec.CommandContext(ctx, filepath.Join(builder.Dir(root), "builder"), "--config", source)
		cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			os.RemoveAll(made)
			return nil, fmt.Errorf("build the Collector: %w\n%s", err, out)
		}
	}
	s := &server{name: "Collector", grpc: free(), http: free(), log: filepath.Join(dir, "collector.log")}
	config, err := file(dir, "collector.yaml", fmt.Sprintf(collectorConfig, s.grpc, s.http))
	if err != nil {
		return nil, err
	}
	s.cmd = exec.Command(program, "--config", config)
	s.cmd.Env = os.Environ()
	return s, nil
}

// start starts the server and waits until it listens.
func (s *server) start() error {
	log, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Env = append(s.cmd.Env, "GOMAXPROCS=1")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.http)
		if err == nil {
			conn.Close()
			return nil
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(s.log)
			return fmt.Errorf("%s does not listen: %w\n%s", s.name, err, text)
		}
	}
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// processor returns the processor time that the server has had.
func (s *server) processor() time.Duration { return host.CPUTime(s.cmd.Process.Pid) }
