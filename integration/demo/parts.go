package main

import (
	"context"
	"io"
	"os/exec"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// parts finds what the demo runs shimtrace with, and unpacks what the machine lacks.
func parts(ctx context.Context, p *progress) (rig.Version, error) {
	var lacking []toolset.Tool
	version := rig.Host
	for _, program := range []string{"containerd", "ctr", "containerd-shim-runc-v2", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			version = rig.V16
		}
	}
	if version != rig.Host {
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
