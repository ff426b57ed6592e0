// Package toolset builds the programs that the integration tests run, at
// exact versions, once, and keeps them outside the tree.
//
// Tools are Go programs, for which a Go toolchain and a module proxy are enough, Debian's
// own, which are unpacked and not installed, or Java programs of Maven Central: no image
// registry, no release archives. It does not build shimtrace itself, nor anything for a guest. The tools command builds; the rig package only
// looks up what has been built, so that no test waits minutes for a compiler.
package toolset

import (
	_ "embed"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
)

// env names the variable that moves the cache directory.
const env = "SHIMTRACE_TOOLS"

// A Tool is one build of one module at one version, or the programs of some Debian
// packages: one directory of the cache.
type Tool struct {
	Name    string
	Version string
	// Debian lists packages of the machine's Debian release, which says their exact
	// versions. A tool has these, an artifact of Maven's, or a Module.
	Debian   []string
	Maven    string // group:artifact:version:packaging:classifier
	Module   string
	Packages []string // import paths of the commands, relative to Module
	Tags     string   // build tags
	// InPlace builds in a copy of the module's source, with its own go.mod.
	// It is for modules that declare another path than the one they are
	// published under, and therefore cannot be a requirement.
	InPlace bool
	// Components make the tool a Collector of Module's builder.
	Components map[string][]string
	// Replace holds modules of a Collector at other versions, as in go.mod.
	Replace []string
	// Main is the source of a program of ours, of one file, if Module has only packages.
	Main  []byte
	Needs []Need
}

// The tools. A new version is a new directory: nothing built is overwritten.
var (
	// Containerd24 is containerd, ctr and containerd-shim-runc-v2 of 2.4.
	Containerd24 = Tool{
		Name: "containerd", Version: "v2.4.2",
		Module:   "github.com/containerd/containerd/v2",
		Packages: []string{"cmd/containerd", "cmd/ctr", "cmd/containerd-shim-runc-v2"},
	}
	// Containerd17 is the same of 1.7.
	Containerd17 = Tool{
		Name: "containerd", Version: "v1.7.35",
		Module:   "github.com/containerd/containerd",
		Packages: []string{"cmd/containerd", "cmd/ctr", "cmd/containerd-shim-runc-v2"},
	}
	// Containerd16 is what Debian 12 has: containerd 1.6 and runc 1.1.
	Containerd16 = Tool{Name: "containerd", Version: "debian-12", Debian: []string{"containerd", "runc"}}
	// TracingShim is a containerd-shim-runc-v2 of 2.4 that makes spans of its
	// own, children of the context that its requests carry: the proof that an
	// injected context arrives.
	TracingShim = Tool{
		Name: "containerd-shim-tracing", Version: "v2.4.2",
		Module:   "github.com/containerd/containerd/v2",
		Packages: []string{"cmd/containerd-shim-runc-v2"},
		Tags:     "shim_tracing",
	}
	// Runc has seccomp, which nerdctl insists on.
	Runc = Tool{
		Name: "runc", Version: "v1.5.2",
		Module:   "github.com/opencontainers/runc",
		Packages: []string{""},
		Tags:     "seccomp",
		Needs:    []Need{needGCC, needPkgConfig, needSeccomp},
	}
	Nerdctl = Tool{
		Name: "nerdctl", Version: "v2.1.2",
		Module:   "github.com/containerd/nerdctl/v2",
		Packages: []string{"cmd/nerdctl"},
	}
	Crictl = Tool{
		Name: "crictl", Version: "v1.30.0",
		Module:   "sigs.k8s.io/cri-tools",
		Packages: []string{"cmd/crictl"},
		InPlace:  true,
	}
	// Busybox needs no libraries. Tests take the machine's own.
	Busybox = Tool{Name: "busybox", Version: "debian-12", Debian: []string{"busybox-static"}}
	// QEMUUser runs programs for other architectures. Only the test of a whole release
	// needs it, which gets it, so it is not among All.
	QEMUUser = Tool{Name: "qemu-user", Version: "debian-12", Debian: []string{"qemu-user-static"}}
	// Nginx is a web server and a proxy, in a collector's place and before one.
	Nginx = Tool{Name: "nginx", Version: "debian-12", Debian: []string{"nginx"}}
	// Zipkin is Zipkin's server, with its store in memory.
	Zipkin = Tool{
		Name: "zipkin", Version: "3.4.2",
		Maven: "io.zipkin:zipkin-server:3.4.2:jar:slim",
		Needs: []Need{needJava, needMaven},
	}
	// Jaeger is a backend, and a collector that Kata's Go runtime can post to. make test
	// does without.
	Jaeger = Tool{
		Name: "jaeger", Version: "v1.76.0",
		Module:   "github.com/jaegertracing/jaeger",
		Packages: []string{"cmd/jaeger"},
		InPlace:  true, // its own go.sum has what a checksum database may lack
	}
	// Datadog is the part of the Datadog Agent that sends traces, and a server in Datadog's
	// place.
	Datadog = Tool{
		Name: "datadog", Version: "v0.82.0",
		Module: "github.com/DataDog/datadog-agent/pkg/trace",
		Main:   datadogMain,
	}
)

//go:embed datadog/main.go
var datadogMain []byte

// Backends are what make test-backends needs beside All.
func Backends() []Tool { return []Tool{Collector, Jaeger, Datadog} }

// All lists the tools of the tests in the order in which they are built.
func All() []Tool {
	return []Tool{Containerd16, Nginx, Zipkin, Runc, Containerd24, TracingShim, Containerd17, Nerdctl, Crictl}
}

// Root is the cache directory: $SHIMTRACE_TOOLS, else shimtrace/tools in the
// user's cache directory. It need not exist.
func Root() (string, error) {
	if dir := os.Getenv(env); dir != "" {
		return filepath.Abs(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the tools directory: %w (set %s)", err, env)
	}
	return filepath.Join(cache, "shimtrace", "tools"), nil
}

// String is the directory's name: the name and version, and a digest of what tests make the
// tool of, if that is more than its module.
func (t Tool) String() string {
	name := t.Name + "-" + t.Version
	if t.Components == nil && t.Main == nil {
		return name
	}
	h := fnv.New32a()
	fmt.Fprint(h, t.Components, t.Replace, string(t.Main))
	return fmt.Sprintf("%s-%08x", name, h.Sum32())
}

// Dir is where the tool's programs are, once it is built.
func (t Tool) Dir(root string) string { return filepath.Join(root, t.String()) }

// Built reports whether the tool is in the cache. A directory appears there
// only complete.
func (t Tool) Built(root string) bool {
	_, err := os.Stat(t.Dir(root))
	return err == nil
}
