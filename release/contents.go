package main

import (
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2/files"
)

// content is one file of a package, by its path there.
type content struct {
	path   string // without the first slash
	source string // a file, or the target if it is a link
	link   bool
	mode   fs.FileMode
	config bool // the operator's, once it is there
}

// contents are the files that all packages and archives have.
func (r *release) contents(bin, notices string) ([]content, error) {
	const docs = "usr/share/doc/shimtrace/"
	files := filepath.Join(r.tree, "release/files")
	all := []content{
		// runc's shim comes with containerd. shimtrace install links all others.
		{path: "usr/bin/containerd-shim-runc-traced-v2", source: "containerd-shim-traced-v2", link: true},
		{path: "usr/bin/containerd-shim-runc-traced", source: "containerd-shim-traced-v2", link: true},
		{path: "etc/shimtrace/config.toml", source: filepath.Join(files, "config.toml"), mode: 0o600, config: true},
		{path: "usr/lib/systemd/system/shimtrace-collect.service", source: filepath.Join(files, "shimtrace-collect.service"), mode: 0o644},
		{path: "usr/lib/systemd/system/shimtrace-forward.service", source: filepath.Join(files, "shimtrace-forward.service"), mode: 0o644},
		{path: docs + "copyright", source: filepath.Join(r.tree, "LICENSE"), mode: 0o644},
		{path: docs + "third-party-notices", source: notices, mode: 0o644},
		{path: docs + "CHANGELOG.md", source: filepath.Join(r.tree, "CHANGELOG.md"), mode: 0o644},
		{path: docs + "README.md", source: filepath.Join(r.tree, "README.md"), mode: 0o644},
	}
	programs, err := filepath.Glob(filepath.Join(bin, "*"))
	if err != nil {
		return nil, err
	}
	for _, p := range programs {
		all = append(all, content{path: "usr/bin/" + filepath.Base(p), source: p, mode: 0o755})
	}
	err = filepath.WalkDir(r.docs, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, content{path: strings.TrimPrefix(path, r.docs+"/"), source: path, mode: 0o644})
		}
		return err
	})
	return all, err
}

// packaged returns the content as nfpm takes it.
func (c content) packaged(r *release) *files.Content {
	p := &files.Content{
		Source: c.source, Destination: "/" + c.path,
		FileInfo: &files.ContentFileInfo{Mode: c.mode, MTime: r.time, Owner: "root", Group: "root"},
	}
	switch {
	case c.link:
		p.Type = files.TypeSymlink
	case c.config:
		p.Type = files.TypeConfigNoReplace
	}
	return p
}
