package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// writeArchive writes all files below one directory, in an order and with times that are
// always the same.
func (r *release) writeArchive(file, dir string, all []content) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b content) int { return strings.Compare(a.path, b.path) })
	for _, c := range all {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: path.Join(dir, c.path), Mode: int64(c.mode & fs.ModePerm),
			Uname: "root", Gname: "root", ModTime: r.time, Format: tar.FormatPAX,
		}
		var text []byte
		var err error
		if c.link {
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, c.source, 0o777
		} else if text, err = os.ReadFile(c.source); err != nil {
			return err
		}
		h.Size = int64(len(text))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	text, err := compressed(b.Bytes())
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// writeSums writes SHA256SUMS, for sha256sum --check.
func writeSums(dir string, names []string) error {
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(text), name)
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(b.String()), 0o644)
}
