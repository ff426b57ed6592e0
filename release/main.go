// Command release builds what users install: static programs for each architecture, as
// archives and as packages for Debian and for RPM, with manual pages, completions,
// systemd units, a bill of materials, the licenses of what is linked, and checksums.
//
// The same commit gives the same bytes, on whatever machine and in whatever directory,
// with the same version of Go.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	out := flag.String("out", "dist", "the directory to make, or to write into")
	archs := flag.String("arch", "amd64,arm64", "the architectures, separated by commas")
	tree := flag.String("tree", "..", "the source tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *tree, *out, strings.Split(*archs, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// run builds everything into a directory.
func run(ctx context.Context, tree, out string, archs []string) error {
	tree, err := filepath.Abs(tree)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	r, err := newRelease(ctx, tree, work)
	if err != nil {
		return err
	}
	fmt.Println("version", r.version)
	if err := r.documents(ctx); err != nil {
		return fmt.Errorf("manual pages and completions: %w", err)
	}
	var made []string
	for _, arch := range archs {
		files, err := r.architecture(ctx, arch, out)
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		made = append(made, files...)
	}
	return writeSums(out, made)
}

// architecture builds all for one architecture and returns the names of the files.
func (r *release) architecture(ctx context.Context, arch, out string) ([]string, error) {
	bin := filepath.Join(r.work, "bin-"+arch)
	fmt.Println("building for", arch)
	if err := r.build(ctx, bin, "GOOS=linux", "GOARCH="+arch); err != nil {
		return nil, err
	}
	modules, err := linked(ctx, r.tree, bin)
	if err != nil {
		return nil, err
	}
	notices := filepath.Join(r.work, "third-party-notices-"+arch)
	if err := writeNotices(notices, modules); err != nil {
		return nil, err
	}
	all, err := r.contents(bin, notices)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("shimtrace_%s_linux_%s", r.version, arch)
	sbom := name + ".cdx.json"
	if err := r.writeSBOM(filepath.Join(out, sbom), arch, modules); err != nil {
		return nil, err
	}
	archive := name + ".tar.gz"
	if err := r.writeArchive(filepath.Join(out, archive), name, all); err != nil {
		return nil, err
	}
	names := []string{archive, sbom}
	for _, format := range []string{"deb", "rpm"} {
		file, err := r.writePackage(out, format, arch, all)
		if err != nil {
			return nil, err
		}
		names = append(names, file)
	}
	return names, nil
}
