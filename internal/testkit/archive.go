package testkit

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"
)

// Gunzip returns what is in a compressed file.
func Gunzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	Check(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	Check(t, err)
	data, err := io.ReadAll(z)
	Check(t, err)
	return data
}

// Untar returns the contents of the regular files of a compressed archive, in their order.
func Untar(t testing.TB, path string) (all [][]byte) {
	t.Helper()
	for files := tar.NewReader(bytes.NewReader(Gunzip(t, path))); ; {
		h, err := files.Next()
		if err == io.EOF {
			return all
		}
		Check(t, err)
		if h.Typeflag != tar.TypeReg {
			continue
		}
		body, err := io.ReadAll(files)
		Check(t, err)
		all = append(all, body)
	}
}
