package vm

import (
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript string

// An image is what a guest boots into.
type image struct {
	modules  []string          // names; dependencies follow
	files    map[string]string // path in the guest: file of this machine
	texts    map[string]string // path in the guest: content
	services []string          // shell commands
}

// write makes the initramfs at path, byte for byte the same from the same parts
// and files. It is not compressed: reading it costs an emulated processor
// nothing, inflating it would.
func (im image) write(path string, p Parts) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make the guest's initramfs: %w", err)
		}
	}()
	modules, err := loadOrder(p.Modules, im.modules)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	a := newArchive(f)
	for _, dir := range []string{"dev", "proc", "run", "sys", "tmp"} {
		a.dir(dir)
	}
	a.text("init", initScript)
	a.text("etc/services", background(im.services))
	a.file("bin/busybox", p.Busybox)
	for i, m := range modules {
		a.file(fmt.Sprintf("lib/modules/%02d-%s", i, filepath.Base(m)), m)
	}
	for _, name := range slices.Sorted(maps.Keys(im.texts)) {
		a.text(name, im.texts[name])
	}
	for _, name := range slices.Sorted(maps.Keys(im.files)) {
		a.file(name, im.files[name])
	}
	if err := a.close(); err != nil {
		return err
	}
	return f.Close()
}

// background is the shell script that starts the services.
func background(services []string) string {
	var b strings.Builder
	for _, s := range services {
		fmt.Fprintf(&b, "{ %s\n} </dev/null &\n", s)
	}
	return b.String()
}
