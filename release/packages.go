package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // likewise
)

// own are directories that go with the package.
var own = []string{"/etc/shimtrace", "/usr/share/doc/shimtrace"}

// writePackage writes a package into a directory and returns its name.
func (r *release) writePackage(out, format, arch string, all []content) (string, error) {
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	scripts := filepath.Join(r.tree, "release/files")
	info := &nfpm.Info{
		Name: "shimtrace", Arch: arch, Platform: "linux", Version: r.version, VersionSchema: "none", Release: "1",
		Section: "admin", Priority: "optional", Maintainer: "The shimtrace authors <shimtrace@users.noreply.github.com>",
		Homepage: "https://github.com/shimtrace/shimtrace", License: "Apache-2.0",
		Description: "traces containerd's shims, Kata Containers and their VMs\n" +
			"A containerd runtime shim that wraps the real one and makes a span of each call,\n" +
			"from containerd down into Kata's VM, and the tool that shows and ships the traces.",
		MTime: r.time, DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Recommends: []string{"containerd"},
			Scripts: nfpm.Scripts{
				PreRemove:  filepath.Join(scripts, "preremove.sh"),
				PostRemove: filepath.Join(scripts, "postremove.sh"),
			},
			Deb: nfpm.Deb{Compression: "gzip"},
			RPM: nfpm.RPM{Compression: "gzip", BuildHost: "localhost", Summary: "traces containerd's shims, Kata Containers and their VMs"},
		},
	}
	if format == "rpm" {
		info.Recommends = nil // containerd.io, containerd or none: all provide other names
	}
	var contents files.Contents
	for _, dir := range own {
		// Of a directory that no package has, RPM leaves an empty one.
		contents = append(contents, &files.Content{Type: files.TypeDir, Destination: dir, FileInfo: &files.ContentFileInfo{Mode: 0o755, MTime: r.time, Owner: "root", Group: "root"}})
	}
	for _, c := range all {
		if format == "rpm" {
			c.path = strings.Replace(c.path, "zsh/vendor-completions", "zsh/site-functions", 1) // Debian's name for it
		}
		contents = append(contents, c.packaged(r))
	}
	info.Contents = contents
	info = nfpm.WithDefaults(info)
	name := packager.ConventionalFileName(info)
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	f, err := os.Create(filepath.Join(out, name))
	if err != nil {
		return "", err
	}
	err = packager.Package(info, f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return name, nil
}
