package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// The first line of a configuration that install has put there.
const (
	configMark = "# Written by \"shimtrace install --config\": change it where that has it from."
	configDir  = " Its directory was made for it."
)

// planConfig returns the step that puts the configuration named on the command line where
// shims read it. It must be one without mistakes.
func (in *installer) planConfig() (s step, ok bool, err error) {
	if in.opts.Config == "" {
		return s, false, nil
	}
	text, err := tomltree.ReadFile(in.opts.Config)
	if err != nil {
		return s, false, err
	}
	if _, err := config.Parse(text, ""); err != nil {
		return s, false, fmt.Errorf("%s: %w", in.opts.Config, err)
	}
	s = step{Action: actionConfig, Path: in.below(config.DefaultPath), Source: in.opts.Config}
	mark := configMark
	now, err := tomltree.ReadFile(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(s.Path)); errors.Is(err, fs.ErrNotExist) {
			mark += configDir
		}
	case err != nil:
		return s, false, err
	case strings.HasPrefix(string(now), configMark):
		mark, _, _ = strings.Cut(string(now), "\n")
	case !in.opts.Force:
		return s, false, fmt.Errorf("%s is there, and was not put there by shimtrace install --config: --force replaces it", s.Path)
	}
	s.content = append([]byte(mark+"\n"), text...)
	if string(now) == string(s.content) {
		s.Action = actionKeep
	}
	return s, true, nil
}

// planConfigRemoval returns the step that removes a configuration that install has put
// there.
func (in *installer) planConfigRemoval() (s step, ok bool) {
	path := in.below(config.DefaultPath)
	now, err := tomltree.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(now), configMark) || len(in.inners) > 0 {
		return s, false
	}
	head, _, _ := strings.Cut(string(now), "\n")
	return step{Action: actionRemove, Path: path, directory: strings.HasSuffix(head, configDir)}, true
}
