package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
)

// completions are the shells' files, by where they are installed.
var completions = map[string]string{
	"bash": "usr/share/bash-completion/completions/shimtrace",
	"zsh":  "usr/share/zsh/vendor-completions/_shimtrace",
	"fish": "usr/share/fish/vendor_completions.d/shimtrace.fish",
}

// documents has the tool itself write its manual pages and completions.
func (r *release) documents(ctx context.Context) error {
	native := filepath.Join(r.work, "native")
	if err := r.build(ctx, native, "GOOS=", "GOARCH="); err != nil {
		return err
	}
	tool := filepath.Join(native, "shimtrace")
	pages := filepath.Join(r.work, "man")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	if _, err := r.output(ctx, tool, "man", "--date", r.time.Format(time.DateOnly), pages); err != nil {
		return err
	}
	if err := r.configPage(filepath.Join(pages, "shimtrace-config.toml.5")); err != nil {
		return err
	}
	found, err := os.ReadDir(pages)
	if err != nil {
		return err
	}
	for _, page := range found {
		text, err := os.ReadFile(filepath.Join(pages, page.Name()))
		if err == nil {
			text, err = compressed(text)
		}
		section := filepath.Ext(page.Name())[1:]
		if err == nil {
			err = write(filepath.Join(r.docs, "usr/share/man/man"+section, page.Name()+".gz"), text)
		}
		if err != nil {
			return err
		}
	}
	for shell, path := range completions {
		text, err := r.output(ctx, tool, "completion", shell)
		if err != nil {
			return err
		}
		if err := write(filepath.Join(r.docs, path), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// configPage makes a manual page of docs/configuration.md.
func (r *release) configPage(path string) error {
	text, err := os.ReadFile(filepath.Join(r.tree, "docs/configuration.md"))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	head := fmt.Sprintf("%% SHIMTRACE-CONFIG.TOML 5 %s\n# NAME\nshimtrace-config.toml - the configuration of shimtrace\n# DESCRIPTION\n", r.time.Format(time.DateOnly))
	return os.WriteFile(path, md2man.Render([]byte(head+rest)), 0o644)
}

// compressed returns text as gzip, without a time in it.
func compressed(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = z.Write(text)
	}
	if err == nil {
		err = z.Close()
	}
	return b.Bytes(), err
}

func write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
