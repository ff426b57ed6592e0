package forward

import (
	"errors"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
)

// Options say what is received and what happens to it.
type Options struct {
	Config config.Config
	// Name is the spans' service.name.
	Name string
	// Paths are hybrid VSOCK sockets, with or without {sandbox}; none: VSOCK. All means
	// VSOCK and the known sockets of all VMMs.
	Paths []string
	All   bool
	// User names the user that reads, stores and ships; empty: our own.
	User string
	// Dump prints spans as they come, JSON prints all counts at the end.
	Dump, JSON bool
	// KeepTraceIDs leaves spans in the traces that guests name.
	KeepTraceIDs bool

	sockets []listen.Pattern
	vsock   bool
	account *user.User // nil: our own user
}

// complete fills in the fields that follow from the options.
func (o *Options) complete() (err error) {
	o.vsock = len(o.Paths) == 0
	if o.All {
		o.sockets = agentconfig.Sockets(o.Config.Agent)
	}
	for _, path := range o.Paths {
		p, err := socketPattern(path)
		if err != nil {
			return console.UsageError("--socket-path %q: %w", path, err)
		}
		o.sockets = append(o.sockets, p)
	}
	if o.User != "" {
		if o.account, err = lookupUser(o.User); err != nil {
			return console.UsageError("--user %q: %w", o.User, err)
		}
	}
	return nil
}

// socketPattern makes a pattern from a path, which need not have a placeholder.
func socketPattern(path string) (listen.Pattern, error) {
	if path == "" {
		return listen.Pattern{}, errors.New("the path is empty")
	}
	// kata-runtime env has {ID} in SocketPath.
	path, err := filepath.Abs(strings.ReplaceAll(path, "{ID}", sandboxPlaceholder))
	if err != nil {
		return listen.Pattern{}, err
	}
	if path == "/" {
		return listen.Pattern{}, errors.New("that is no socket")
	}
	return listen.Pattern{VMM: "--socket-path", Path: path}, nil
}
