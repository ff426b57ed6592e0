package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/kataconfig"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// kataSetUp is what install changes in Kata's configurations.
type kataSetUp struct {
	on       bool // asked for: with --kata
	root     string
	files    []string // those named on the command line
	settings kataconfig.Settings
	force    bool

	configs []kataconfig.Config // those to change, once found
	notes   []string            // warnings for the operator
}

// Kata says which of its tracing to turn on.
type Kata struct {
	Agent, Runtime bool
	// Files are its configurations; none: all at the known locations.
	Files []string
}

func (in *installer) kataSetUp() (*kataSetUp, error) {
	o := in.opts.Kata
	if o == nil {
		return &kataSetUp{root: in.opts.Root}, nil
	}
	k := &kataSetUp{on: true, root: in.opts.Root, files: o.Files, force: in.opts.Force}
	if len(in.inners) > 0 && !slices.ContainsFunc(in.inners, isKata) {
		return nil, console.UsageError("--kata with %s: none of them is Kata's", joinNames(in.inners))
	}
	if in.opts.Uninstall {
		return k, nil
	}
	cfg, r := config.Load("", in.opts.Getenv)
	for _, err := range r.Ignored {
		in.opts.Warn("%v", err)
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	k.settings = kataconfig.Settings{Agent: o.Agent, Runtime: o.Runtime, Endpoint: "http://" + cfg.Jaeger.Listen + "/api/traces"}
	switch {
	case !k.settings.Agent && !k.settings.Runtime:
		return nil, console.UsageError("--kata without agent and runtime leaves nothing to turn on")
	case k.settings.Agent && cfg.Agent.Receive == "off":
		return nil, errors.New("receive of [agent] in the configuration is off, nobody would take the agents' spans: change that, or use --kata-agent=false")
	case k.settings.Runtime && cfg.Jaeger.Receive == "off":
		return nil, errors.New("receive of [jaeger] in the configuration is off, nobody would take the runtime's spans: change that, or use --kata-runtime=false")
	}
	return k, k.checkPort(cfg.Jaeger.Listen)
}

// checkPort returns an error if another user's process has the port to which the
// runtime would post its spans, which include containers' environments. It notes who
// else could open the port.
func (k *kataSetUp) checkPort(listen string) error {
	if !k.settings.Runtime || k.force {
		return nil
	}
	at, err := netip.ParseAddrPort(listen)
	if err != nil { // the configuration has been checked
		return err
	}
	const proc = host.Proc("/proc")
	holder, found, err := proc.Holder(at)
	if err != nil {
		k.notes = append(k.notes, fmt.Sprintf("whether another user has port %d of this host, to which the runtime posts its spans, is not known: %v", at.Port(), err))
	}
	if found && holder.Foreign() {
		return fmt.Errorf("%s, to which the runtime would post its spans, and containers' environments in them, is open in %v: end that, or set listen in [jaeger] of the configuration to another port, or use --kata-runtime=false; --force does it nonetheless", at, holder)
	}
	if first := proc.FirstUnprivilegedPort(); int(at.Port()) >= first {
		k.notes = append(k.notes, fmt.Sprintf("every user of this host may open port %d (net.ipv4.ip_unprivileged_port_start is %d), and while shimtrace does not run, he gets the runtime's spans: set listen in [jaeger] of the configuration to a lower port", at.Port(), first))
	}
	return nil
}

func isKata(n shimname.Name) bool { return kata.IsShim(n.Inner) }

func joinNames(names []shimname.Name) string {
	var texts []string
	for _, n := range names {
		texts = append(texts, n.String())
	}
	return strings.Join(texts, ", ")
}

func (k *kataSetUp) locations() string { return strings.Join(kataconfig.Locations(k.root), ", ") }

// find finds the configurations: those named, else those of the inner shims, else all
// at the known locations and in containerd's handlers.
func (k *kataSetUp) find(inners []shimname.Name, containerd []containerdconf.Config) error {
	if !k.on {
		return nil
	}
	var err error
	if len(k.files) > 0 {
		k.configs, err = kataconfig.Open(k.root, k.files...)
		return err
	}
	all, unread := kataconfig.Find(k.root)
	for _, err := range unread {
		k.notes = append(k.notes, err.Error())
	}
	of, handlers := k.ofHandlers(containerd)
	for _, c := range of {
		if !slices.ContainsFunc(all, func(other kataconfig.Config) bool { return other.File == c.File }) {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return console.NothingFound("no configuration of Kata is in %s; --kata-config names one", k.locations())
	}
	if k.configs = all; len(inners) == 0 {
		return nil
	}
	k.configs = nil
	for _, inner := range inners {
		if !isKata(inner) {
			continue
		}
		n := len(k.configs)
		for _, c := range all {
			if slices.Contains(handlers[c.File], inner) || slices.Contains(c.Handlers(), inner.Inner) {
				k.configs = append(k.configs, c)
			}
		}
		if len(k.configs) == n {
			return console.NothingFound("no configuration of %s (configuration%s.toml) is in %s; --kata-config names one", inner, strings.TrimPrefix(inner.Inner, "kata"), k.locations())
		}
	}
	return nil
}

// ofHandlers returns the configurations that containerd's handlers name, and for each
// file the inner shims of its handlers.
func (k *kataSetUp) ofHandlers(containerd []containerdconf.Config) (configs []kataconfig.Config, inners map[string][]shimname.Name) {
	inners = map[string][]shimname.Name{}
	for _, c := range containerd {
		for _, r := range c.Runtimes {
			n, ok := innerOfHandler(r)
			if !ok || !isKata(n) || r.ConfigPath() == "" {
				continue
			}
			opened, err := kataconfig.Open(k.root, filepath.Join(k.root, r.ConfigPath()))
			if err != nil {
				k.notes = append(k.notes, fmt.Sprintf("handler %s of containerd: %v", r.Name, err))
				continue
			}
			configs = append(configs, opened...)
			inners[opened[0].File] = append(inners[opened[0].File], n)
		}
	}
	return configs, inners
}

// withInners adds the inner shims of Kata's installations outside of PATH: kata-deploy
// puts none there, and containerd knows them by their paths.
func (k *kataSetUp) withInners(inners []shimname.Name) []shimname.Name {
	for _, c := range k.configs {
		for _, h := range c.Handlers() {
			n, ok := shimname.Parse("containerd-shim-" + h + "-v2")
			if ok && c.Shim != "" && (c.Deployed() || h == "kata") && !slices.Contains(inners, n) {
				inners = append(inners, n)
			}
		}
	}
	slices.SortFunc(inners, compareNames)
	return slices.Compact(inners)
}

// of returns an inner shim's configuration and program, as if the root were "/"; empty if
// unknown.
func (k *kataSetUp) of(inner shimname.Name) (file, shim string) {
	for _, c := range k.configs {
		if slices.Contains(c.Handlers(), inner.Inner) {
			root := strings.TrimSuffix(k.root, "/")
			return strings.TrimPrefix(c.File, root), strings.TrimPrefix(c.Shim, root)
		}
	}
	return "", ""
}

func (k *kataSetUp) plan() ([]kataconfig.Change, error) {
	if !k.on {
		return nil, nil
	}
	return kataconfig.Plan(k.root, k.configs, k.settings, k.force)
}

// planRemoval plans the removal of all drop-ins, or of the inner shims' only. An
// uninstallation without --kata removes all of them, unless it names single shims.
func (k *kataSetUp) planRemoval(inners []shimname.Name, containerd []containerdconf.Config) ([]kataconfig.Change, error) {
	switch {
	case len(inners) == 0 && len(k.files) == 0:
		configs, _ := k.ofHandlers(containerd)
		return kataconfig.PlanRemoval(configs, kataconfig.FindDropIns(k.root), k.force)
	case !k.on:
		return nil, nil
	}
	if err := k.find(inners, containerd); err != nil {
		return nil, err
	}
	return kataconfig.PlanRemoval(k.configs, nil, k.force)
}

// write prints which tracing is on now, and what is left to do.
func (k *kataSetUp) write(w io.Writer, changes []kataconfig.Change) error {
	if !k.on {
		return nil
	}
	var b bytes.Buffer
	what := "agent and runtime"
	if !k.settings.Runtime {
		what = "agent"
	} else if !k.settings.Agent {
		what = "runtime"
	}
	heading := fmt.Sprintf("\nKata traces its %s in sandboxes that start from now on with:\n\n", what)
	for _, c := range changes {
		for _, config := range c.Configs {
			if c.Action != kataconfig.ByHand {
				fmt.Fprintf(&b, "%s  %s\n", heading, describe(config))
				heading = ""
			}
		}
	}
	for _, note := range k.notes {
		fmt.Fprintf(&b, "\nBut %s.\n", note)
	}
	for _, c := range changes {
		for _, note := range c.Notes {
			fmt.Fprintf(&b, "\nBut %s.\n", note)
		}
		if c.Action == kataconfig.ByHand {
			b.WriteString("\nKata before 2.5 reads no drop-ins. Set these keys in the sections that are there:\n\n")
			for _, config := range c.Configs {
				fmt.Fprintf(&b, "  # %s\n", describe(config))
			}
			for line := range strings.Lines(c.Lines) {
				b.WriteString(strings.TrimRight("  "+line, " \n") + "\n")
			}
		}
	}
	b.WriteString("\nRun them with the traced runtimes above: shimtrace takes the spans where these run.\n")
	if k.settings.Agent {
		b.WriteString("For the agents of single pods only, install with --kata-agent=false and annotate the pods:\n\n" +
			"  io.katacontainers.config.agent.enable_tracing: \"true\"\n")
	}
	_, err := w.Write(b.Bytes())
	return err
}

func describe(c kataconfig.Config) string {
	runtime := map[string]string{"go": "runtime in Go", "rust": "runtime-rs"}[c.Runtime]
	if c.Version != "" {
		runtime += " " + c.Version
	}
	return c.File + " (" + runtime + ")"
}
