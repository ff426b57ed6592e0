package vm

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// Parts are the files of this machine that guests are made of.
type Parts struct {
	Kernel  string // its image
	Modules string // the directory of its modules
	QEMU    string
	Busybox string // static
	// Vsock is vhost-device-vsock, the far end of a hybrid guest's VSOCK.
	Vsock string
}

// The cache's directories are named after what is in them, version included.
const (
	kernelMeta = "linux-image-cloud-amd64" // depends on the newest kernel
	kernelGlob = "linux-image-*"

	vsockCrate   = "vhost-device-vsock"
	vsockVersion = "0.3.0"
	vsockDir     = vsockCrate + "-" + vsockVersion + "-mended"
)

// findParts looks the parts up, without getting any. What is absent is a
// [*rig.MissingError].
func findParts() (Parts, error) {
	root, err := toolset.Root()
	if err != nil {
		return Parts{}, err
	}
	var p Parts
	var what, packages []string
	if p.Kernel, p.Modules = findKernel(root); p.Kernel == "" {
		what = append(what, "a guest's kernel in "+root+" (go -C integration run ./vm/parts)")
	}
	p.Vsock = filepath.Join(root, vsockDir, "bin", vsockCrate)
	if _, err := exec.LookPath(p.Vsock); err != nil {
		what = append(what, vsockDir+" in "+root+" (go -C integration run ./vm/parts)")
	}
	for _, need := range []struct {
		path         *string
		program, pkg string
	}{
		{&p.QEMU, "qemu-system-x86_64", "qemu-system-x86"},
		{&p.Busybox, "busybox", "busybox-static"},
	} {
		if *need.path, err = exec.LookPath(need.program); err != nil {
			packages = append(packages, need.pkg)
		}
	}
	if packages != nil {
		what = append(what, "packages (apt-get install "+strings.Join(packages, " ")+")")
	}
	if what != nil {
		return Parts{}, &rig.MissingError{What: what}
	}
	return p, nil
}

// findKernel returns the kernel in the cache, or empty strings. Of several, it
// is the one whose name sorts last.
func findKernel(root string) (kernel, modules string) {
	kernels, _ := filepath.Glob(filepath.Join(root, kernelGlob, "boot", "vmlinuz-*"))
	if len(kernels) == 0 {
		return "", ""
	}
	kernel = slices.Max(kernels)
	release := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	return kernel, filepath.Join(filepath.Dir(kernel), "..", "lib", "modules", release)
}

func needPrograms(what string, programs ...string) error {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("get %s: %w", what, err)
		}
	}
	return nil
}
