package vm

import (
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// The kernel modules of a guest by what it does. What they depend on follows.
var (
	// guestModules give a guest its VSOCK. The transport does not name the bus
	// that it is found on.
	guestModules = []string{"virtio_pci", "vmw_vsock_virtio_transport"}
	// hostModules let a guest have guests. QEMU emulates AMD's virtualization,
	// whatever the machine's own processor is.
	hostModules = []string{"kvm_amd", "vhost_vsock"}
)

// loadOrder returns the files of the named modules and of all they depend on,
// below dir, in the order in which they can be loaded.
func loadOrder(dir string, names []string) ([]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok && err == nil {
			files[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list kernel modules: %w", err)
	}

	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		file := files[name]
		if file == "" {
			return fmt.Errorf("kernel module %s: not in %s", name, dir)
		}
		depends, err := moduleDepends(file)
		if err != nil {
			return fmt.Errorf("kernel module %s: %w", name, err)
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		if err := visit(moduleName(name)); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleDepends reads what modprobe's index would say from the module itself:
// its section .modinfo is a list of NUL-terminated key=value pairs.
func moduleDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s: no section .modinfo", file)
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	var depends []string
	for pair := range strings.SplitSeq(string(data), "\x00") {
		if list, ok := strings.CutPrefix(pair, "depends="); ok && list != "" {
			for name := range strings.SplitSeq(list, ",") {
				depends = append(depends, moduleName(name))
			}
		}
	}
	return depends, nil
}

// moduleName makes kvm-amd and kvm_amd one, as the kernel does.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }
