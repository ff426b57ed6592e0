package main

import (
	"context"
	"io"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// parts finds what the demo runs shimtrace with, and unpacks what the machine lacks.
func parts(ctx context.Context, p *progress) (rig.Version, error) {
	var lacking []toolset.Tool
	version := rig.Host
	if !rig.HostHas() {
		version = rig.V16
		lacking = append(lacking, toolset.Containerd16)
	}
	if !image.Static(image.BusyboxPath) {
		lacking = append(lacking, toolset.Busybox)
	}
	root, err := toolset.Root()
	if err != nil {
		return "", err
	}
	for _, t := range lacking {
		if t.Built(root) {
			continue
		}
		p.begin("unpacking " + t.Source() + " into " + root + " (nothing is installed)")
		if err := toolset.Build(ctx, root, []toolset.Tool{t}, io.Discard); err != nil {
			return "", err
		}
	}
	return version, nil
}
