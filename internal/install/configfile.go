package install

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// The first line of a configuration that install has put there.
const (
	configMark = "# Written by \"shimtrace install --config\": change it where that has it from."
	configDir  = " Its directory was made for it."
)

// planConfig returns the step that puts the configuration named on the command line where
// shims read it. It must be one without mistakes. If the environment names the node, the
// node's name is added; if no configuration is named, the name is all that is put there.
func (in *installer) planConfig() (s step, ok bool, err error) {
	node := in.opts.Getenv(nodeEnv)
	s = step{Action: actionConfig, Path: in.below(config.DefaultPath), Source: cmp.Or(in.opts.Config, nodeEnv)}
	now, failed := tomltree.ReadFile(s.Path)
	var text []byte
	switch {
	case in.opts.Config != "":
		if text, err = in.readConfig(); err != nil {
			return s, false, err
		}
	case node == "", !errors.Is(failed, fs.ErrNotExist) && !onlyNode(now):
		return s, false, nil
	}
	mark := configMark
	switch {
	case errors.Is(failed, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(s.Path)); errors.Is(err, fs.ErrNotExist) {
			mark += configDir
		}
	case failed != nil:
		return s, false, failed
	case strings.HasPrefix(string(now), configMark):
		mark, _, _ = strings.Cut(string(now), "\n")
	case !in.opts.Force:
		return s, false, fmt.Errorf("%s is there, and was not put there by shimtrace install --config: --force replaces it", s.Path)
	}
	s.content = append([]byte(mark+"\n"), withNode(text, node)...)
	if string(now) == string(s.content) {
		s.Action = actionKeep
	}
	return s, true, nil
}

// readConfig reads the configuration named on the command line.
func (in *installer) readConfig() ([]byte, error) {
	text, err := tomltree.ReadFile(in.opts.Config)
	if err != nil {
		return nil, err
	}
	if _, err := config.Parse(text, ""); err != nil {
		return nil, fmt.Errorf("%s: %w", in.opts.Config, err)
	}
	return text, nil
}

// nodeEnv is the variable that names the node: containerd's environment may have it too.
const nodeEnv = "K8S_NODE_NAME"

// nodeKey begins the line with the node's name, in the section of resource attributes.
var nodeKey = strconv.Quote(names.Node) + " = "

// onlyNode reports whether install has put a configuration there that only names the node.
func onlyNode(text []byte) bool {
	mark, rest, _ := strings.Cut(string(text), "\n")
	return strings.HasPrefix(mark, configMark) && strings.HasPrefix(rest, "resource."+nodeKey) && strings.Count(rest, "\n") == 1
}

// resourceHeader begins the section of resource attributes.
var resourceHeader = regexp.MustCompile(`(?m)^[ \t]*\[[ \t]*resource[ \t]*\][^\n]*\n`)

// withNode returns a configuration with the node's name as an attribute of the resource, unless
// it has one, or no place for it.
func withNode(text []byte, node string) []byte {
	cfg, err := config.Parse(text, "")
	if err != nil || node == "" || cfg.Resource[names.Node] != "" {
		return text
	}
	line := fmt.Sprintf("%s%q\n", nodeKey, node)
	named := append([]byte("resource."+line), text...)
	if at := resourceHeader.FindIndex(text); at != nil {
		named = slices.Concat(text[:at[1]], []byte(line), text[at[1]:])
	}
	if cfg, err := config.Parse(named, ""); err != nil || cfg.Resource[names.Node] != node {
		return text
	}
	return named
}

// planConfigRemoval returns the step that removes a configuration that install has put
// there.
func (in *installer) planConfigRemoval() (s step, ok bool) {
	path := in.below(config.DefaultPath)
	now, err := tomltree.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(now), configMark) || len(in.inners) > 0 {
		return s, false
	}
	s = step{Action: actionRemove, Path: path}
	if head, _, _ := strings.Cut(string(now), "\n"); strings.HasSuffix(head, configDir) {
		s.directories = []string{filepath.Dir(path)}
	}
	return s, true
}
