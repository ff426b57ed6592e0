package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds the configuration file; a larger one is a mistake.
const maxFile = 1 << 20

// file is the shape of the TOML file. Runtime sections repeat the common ones;
// what they name replaces the common value, what they leave out inherits it.
type file struct {
	Config
	Runtime map[string]runtimeSection `toml:"runtime"`
}

type runtimeSection struct {
	Shim string `toml:"shim"`
	Config
}

// Path returns the configuration file's path and whether the environment named
// it (a named file must exist, the default one need not).
func Path(getenv func(string) string) (path string, named bool) {
	if p := getenv(PathEnv); p != "" {
		return p, true
	}
	return DefaultPath, false
}

// Load reads the configuration that holds for the inner shim ("runc",
// "kata-qemu"; empty for the common sections only). On error it returns the
// defaults beside an error that names the file, line and column, so that a
// caller may carry on without what the file says.
func Load(inner string, getenv func(string) string) (Config, error) {
	path, named := Path(getenv)
	text, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		text, err = nil, nil
	}
	if err != nil {
		return Default(), fmt.Errorf("configuration %s: %w", path, err)
	}
	cfg, err := Parse(text, inner)
	if err != nil {
		return Default(), fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := cfg.applyEnv(getenv); err != nil {
		return Default(), err
	}
	return cfg, nil
}

func readBounded(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%d bytes; a configuration file has at most %d", st.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// Parse decodes a configuration file's text for the inner shim, without the
// environment.
func Parse(text []byte, inner string) (Config, error) {
	f := file{Config: Default()}
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Default(), locate(err)
	}
	if err := f.Config.validate(); err != nil {
		return Default(), err
	}
	// Every runtime section is checked, so that a mistake shows at once and not
	// on the day that runtime is first used.
	cfg := f.Config
	for name, section := range f.Runtime {
		over, err := overlay(text, name, f.Config)
		if err == nil {
			err = over.validate()
		}
		if err == nil {
			err = over.ownJournal(f.Config)
		}
		if err == nil {
			err = over.oneEndpoint(f.Config)
		}
		if err != nil {
			return Default(), fmt.Errorf("[runtime.%s]: %w", name, err)
		}
		if name == inner {
			cfg = over
			cfg.Shim, cfg.Runtime = section.Shim, name
		}
	}
	return cfg, nil
}

// overlay decodes only the runtime section name over a copy of base: keys that
// the section does not have keep base's values.
func overlay(text []byte, name string, base Config) (Config, error) {
	var raw struct {
		Runtime map[string]map[string]any `toml:"runtime"`
	}
	if err := toml.Unmarshal(text, &raw); err != nil {
		return base, err
	}
	section := raw.Runtime[name]
	delete(section, "shim")
	sub, err := toml.Marshal(section)
	if err != nil {
		return base, err
	}
	cfg := base
	cfg.Resource = maps.Clone(base.Resource)
	cfg.Export.Headers = maps.Clone(base.Export.Headers)
	return cfg, toml.Unmarshal(sub, &cfg)
}

// locate turns the TOML library's errors into one line with line and column.
func locate(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		row, col := e.Position()
		return fmt.Errorf("line %d, column %d: unknown key %q; see docs/configuration.md", row, col, join(e.Key()))
	}
	var dec *toml.DecodeError
	if errors.As(err, &dec) {
		row, col := dec.Position()
		what := strings.TrimPrefix(dec.Error(), "toml: ")
		if len(dec.Key()) > 0 {
			what = join(dec.Key()) + ": " + what
		}
		return fmt.Errorf("line %d, column %d: %s", row, col, what)
	}
	return err
}

func join(key toml.Key) string { return strings.Join(key, ".") }
