package toolset

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Collector is the OpenTelemetry Collector, made of what tests need by its own builder, at
// a release whose modules can be had.
var Collector = Tool{
	Name: "otelcol", Version: "v0.161.0",
	Module: "go.opentelemetry.io/collector/cmd/builder",
	Components: map[string][]string{
		"receivers":  {core + "receiver/otlpreceiver"},
		"processors": {core + "processor/batchprocessor", core + "processor/memorylimiterprocessor", contrib + "processor/tailsamplingprocessor"},
		"exporters":  {core + "exporter/debugexporter", core + "exporter/otlpexporter", core + "exporter/otlphttpexporter", contrib + "exporter/fileexporter", contrib + "exporter/loadbalancingexporter"},
		"extensions": {contrib + "extension/bearertokenauthextension"},
		"providers":  {core + "confmap/provider/fileprovider", core + "confmap/provider/envprovider"},
	},
	// The load balancer's, for AWS, which no test has.
	Replace: []string{"github.com/aws/aws-sdk-go-v2/service/servicediscovery => github.com/aws/aws-sdk-go-v2/service/servicediscovery v1.46.1"},
}

const (
	// stableRelease is the version of the providers in the Collector's release.
	stableRelease = "v1.67.0"

	core    = "go.opentelemetry.io/collector/"
	contrib = "github.com/open-telemetry/opentelemetry-collector-contrib/"
)

// makeCollector puts the Collector's program into bin.
func (t Tool) makeCollector(ctx context.Context, work, bin string) error {
	src, out := filepath.Join(work, "src"), filepath.Join(work, "out")
	if err := t.requireModule(src); err != nil {
		return err
	}
	builder := filepath.Join(work, "builder")
	if _, err := goCommand(ctx, src, "build", "-mod=mod", "-buildvcs=false", "-o", builder, t.Module); err != nil {
		return err
	}
	manifest := filepath.Join(work, "builder.yaml")
	if err := os.WriteFile(manifest, t.manifest(out), 0o644); err != nil {
		return err
	}
	if _, err := Output(ctx, work, "env", "GOWORK=off", "CGO_ENABLED=0", builder, "--config", manifest); err != nil {
		return err
	}
	return os.Rename(filepath.Join(out, t.Name), filepath.Join(bin, t.Name))
}

// manifest is what the builder reads.
func (t Tool) manifest(out string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "dist: {name: %s, output_path: %q, module: example.com/%s}\n", t.Name, out, t.Name)
	for _, kind := range slices.Sorted(maps.Keys(t.Components)) {
		fmt.Fprintf(&b, "%s:\n", kind)
		for _, module := range t.Components[kind] {
			version := t.Version
			if kind == "providers" {
				version = stableRelease
			}
			fmt.Fprintf(&b, "  - gomod: %s %s\n", module, version)
		}
	}
	fmt.Fprintln(&b, "replaces:")
	for _, r := range t.Replace {
		fmt.Fprintf(&b, "  - %s\n", r)
	}
	return []byte(b.String())
}
