package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	// maxFile bounds the configuration file; a larger one is a mistake.
	maxFile = 1 << 20
	// maxMistakes bounds the mistakes reported of one file.
	maxMistakes = 20
)

// Mistake is one mistake in a file.
type Mistake struct {
	Line, Column int // in bytes, from 1
	Text         string
}

// Error implements error.
func (m Mistake) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", m.Line, m.Column, m.Text)
}

// Report says what was wrong while loading a configuration.
type Report struct {
	// Unreadable: the file exists but could not be read at all. Nothing is traced.
	Unreadable bool
	// Mistakes are the mistakes in the file. Each has the effect that it names, and no
	// other.
	Mistakes []error
	// Ignored are environment variables with values that are not understood: they count
	// as not set, as OpenTelemetry's specification demands.
	Ignored []error
	// Overrides are keys of the file that an environment variable has overridden.
	Overrides []string
}

// Err returns the mistakes in the file as one error, nil if there are none.
func (r Report) Err() error { return errors.Join(r.Mistakes...) }

// Path returns the configuration file's path and whether the environment named
// it (a named file must exist, the default one need not).
func Path(getenv func(string) string) (path string, named bool) {
	if p := strings.TrimSpace(getenv(PathEnv)); p != "" {
		return p, true
	}
	return DefaultPath, false
}

// Load reads the configuration of the inner shim ("runc", "kata-qemu"; empty for the
// common sections only). The configuration is valid whatever is wrong with the file or
// the environment; the report says what is.
func Load(inner string, getenv func(string) string) (cfg Config, r Report) {
	path, named := Path(getenv)
	wrong := func(err error) { r.Mistakes = append(r.Mistakes, fmt.Errorf("configuration %s: %w", path, err)) }
	defer func() {
		if p := recover(); p != nil {
			// A bug here must not end a container either.
			cfg, r = Default(), Report{Unreadable: true}
			cfg.Trace.Mode = "off"
			wrong(fmt.Errorf("it cannot be read: %v; nothing is traced", p))
		}
	}()
	text, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		err = nil
	}
	if err != nil && text == nil {
		cfg = Default()
		cfg.Trace.Mode = "off"
		r.Unreadable = true
		wrong(fmt.Errorf("%w; nothing is traced until it can be read", err))
		return cfg, r
	}
	if err != nil {
		wrong(err)
	}
	cfg, set, mistakes := parse(text, inner)
	for i, m := range mistakes {
		if i == maxMistakes {
			wrong(fmt.Errorf("and %d more mistakes", len(mistakes)-i))
			break
		}
		wrong(m)
	}
	cfg.applyEnv(getenv, set, &r)
	return cfg, r
}

// Journals returns one configuration per journal of the host: the common one first,
// then those of runtimes with another journal.
func Journals(getenv func(string) string) ([]Config, Report) {
	common, r := Load("", getenv)
	all := []Config{common}
	path, _ := Path(getenv)
	text, _ := readBounded(path) // the report says what is wrong
	doc := read(text)
	for _, name := range runtimes(doc, doc.root.table["runtime"]) {
		cfg, _ := Load(name, getenv)
		if !slices.ContainsFunc(all, func(c Config) bool { return c.Journal.Dir == cfg.Journal.Dir }) {
			all = append(all, cfg)
		}
	}
	return all, r
}

// readBounded reads a file. Of a file that is too long, it returns the beginning and an
// error. The null device is an empty file, as for other programs.
func readBounded(path string) ([]byte, error) {
	if path == os.DevNull {
		return nil, nil
	}
	// Opening must not block on a FIFO or device, even if it is put there at this
	// moment.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return text[:bytes.LastIndexByte(text[:maxFile], '\n')+1], fmt.Errorf("it has %d bytes; what is beyond the first %d is not read", st.Size(), maxFile)
	}
	return text, nil
}

// Parse returns the configuration for the inner shim from a file's text, without the
// environment. The configuration is valid whatever is wrong with the text; the error
// joins the [Mistake] values.
func Parse(text []byte, inner string) (Config, error) {
	cfg, _, mistakes := parse(text, inner)
	errs := make([]error, len(mistakes))
	for i, m := range mistakes {
		errs[i] = m
	}
	return cfg, errors.Join(errs...)
}

// parse also returns what the file sets for the inner shim. It checks every runtime's
// section, so that a mistake shows at once and not when the runtime is first used.
func parse(text []byte, inner string) (Config, *node, []Mistake) {
	doc := read(text)
	sections := doc.root.table["runtime"]
	delete(doc.root.table, "runtime")
	l := layer{doc: doc, own: doc.root}
	common := l.clean(newTable(0), nil)
	cfg, set := common, l.own

	where := make(journals)
	_ = where.add("the common [export]", common)
	for _, name := range runtimes(doc, sections) {
		section := sections.table[name]
		shim := takeShim(doc, name, section)
		r := layer{doc: doc, own: section, prefix: []string{"runtime", name}}
		over := r.clean(l.own, &common)
		if err := where.add("[runtime."+join([]string{name})+"]", over); err != nil {
			doc.mistake(r.offset("export", "journal"), "runtime.%s.export: %s; this runtime is not traced until it is right", join([]string{name}), err)
			r.set("trace.mode", "off")
			over.Trace.Mode = "off"
		}
		if name == inner {
			cfg, set = over, merge(l.own, section)
			cfg.Shim, cfg.Runtime = shim, name
		}
	}
	slices.SortStableFunc(doc.mistakes, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return cfg, set, doc.mistakes
}

// runtimes returns the names of the runtimes' sections in the order of the file.
func runtimes(doc *document, sections *node) []string {
	if sections == nil {
		return nil
	}
	if sections.table == nil {
		if !sections.broken {
			doc.mistake(sections.at, "runtime: %s", notA(sections, "a section"))
		}
		return nil
	}
	var names []string
	for name, section := range sections.table {
		switch {
		case section.table != nil:
			names = append(names, name)
		case !section.broken:
			doc.mistake(section.key, "runtime.%s: %s", join([]string{name}), notA(section, "a section"))
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(sections.table[a].at, sections.table[b].at), strings.Compare(a, b))
	})
	return names
}

// takeShim removes the shim key, which only a runtime's section has, and returns its
// value.
func takeShim(doc *document, name string, section *node) string {
	n := section.table["shim"]
	delete(section.table, "shim")
	if n == nil || n.broken {
		return ""
	}
	shim, ok := n.value.(string)
	if !ok {
		doc.mistake(n.at, "runtime.%s.shim: %s; it counts as not set", join([]string{name}), notA(n, "a string"))
	}
	return shim
}

// clean drops the mistakes of the layer and returns the configuration of the layer over
// the one below; common is nil for the common layer itself.
func (l *layer) clean(below *node, common *Config) Config {
	l.check()
	for {
		cfg := decode(merge(below, l.own))
		cfg.Journal.Dir, cfg.Relay.StateDir = tidyPath(cfg.Journal.Dir), tidyPath(cfg.Relay.StateDir)
		cfg.Export.completeEndpoint()
		for name, t := range cfg.Export.Targets {
			t.completeEndpoint()
			cfg.Export.Targets[name] = t
		}
		broken := cfg.violations()
		if common != nil {
			broken = append(broken, cfg.onceAHost(*common)...)
		}
		if !slices.ContainsFunc(broken, l.mend) {
			return cfg
		}
	}
}

// mend drops the cause of a violation from the layer and reports whether the layer had
// it.
func (l *layer) mend(v violation) bool {
	for _, path := range v.keys {
		if n := find(l.own, path); n != nil {
			err := v.err
			if n := join(path); n != join(v.keys[0]) {
				err = fmt.Errorf("with it %s is wrong: %w", join(v.keys[0]), v.err)
			}
			l.drop(path, n.at, err)
			return true
		}
	}
	return false
}

// offset returns that of the first named section that the layer has.
func (l *layer) offset(names ...string) int {
	for _, name := range names {
		if n := l.own.table[name]; n != nil {
			return n.at
		}
	}
	return l.own.at
}

func tidyPath(path string) string {
	if path == "" {
		return path
	}
	return filepath.Clean(path)
}
