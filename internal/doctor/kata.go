package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/kataconfig"
)

// katas looks at each configuration of Kata: version, runtime, VMM and its transport, and
// whether what it traces comes to shimtrace.
func katas(_ context.Context, s *site) (all []Finding) {
	for _, err := range s.kataUnread {
		all = append(all, Finding{Level: Note, What: position(err), Do: "remove it if it is a leftover; Kata does not start with it otherwise"})
	}
	traced := slices.ContainsFunc(s.links, func(l link) bool { return kata.IsShim(l.inner.File()) && l.target != "" })
	for _, c := range s.kata {
		all = append(all, s.kataConfig(c, traced)...)
	}
	return all
}

func (s *site) kataConfig(c kataconfig.Config, traced bool) []Finding {
	e, err := c.Effective()
	if err != nil {
		return []Finding{{Level: Error, What: "Kata cannot read it, or a drop-in beside it: " + position(err), Where: c.File, Do: "correct or remove that file: its containers do not start"}}
	}
	all := []Finding{{Level: OK, What: describe(c, e), Where: c.File}}
	add := func(l Level, what, do string) {
		all = append(all, Finding{Level: l, What: what, Where: c.File, Do: do})
	}
	cfg := s.config
	switch {
	case !e.Agent && !e.Runtime:
		add(Note, "Kata traces nothing of itself here: the traces end at the shim's calls and the requests to the agent", "shimtrace install --kata")
	case !traced:
		add(Warning, "Kata traces, and no runtime of it is wrapped: nobody takes its spans", "shimtrace install --kata, or shimtrace install --uninstall --kata")
	}
	if e.Agent && cfg.Agent.Receive == "off" {
		add(Warning, "the agent traces, and receive of [agent] is off: its spans are lost in the VM", "set receive = \"auto\", or shimtrace install --kata --kata-agent=false")
	}
	if e.Runtime {
		s.postsTo(e, cfg, add)
	}
	if transport(e.Hypervisor) == vsock {
		all = append(all, s.vhost(c)...)
	}
	return all
}

// postsTo checks whether the runtime posts its spans to the host's endpoint.
func (s *site) postsTo(e kataconfig.Effective, cfg config.Config, add func(Level, string, string)) {
	const standard = "localhost:14268" // both runtimes' default
	at := standard
	if u, err := url.Parse(e.Endpoint); err == nil && u.Host != "" {
		at = u.Host
	}
	switch {
	case cfg.Jaeger.Receive == "off":
		add(Note, "the runtime posts its spans to "+at+", and receive of [jaeger] is off", "a Jaeger of your own must listen there: the Go runtime waits for it with each span")
	case strings.Replace(at, "localhost", "127.0.0.1", 1) != cfg.Jaeger.Listen:
		add(Warning, fmt.Sprintf("the runtime posts its spans to %s, and shimtrace takes them at %s", at, cfg.Jaeger.Listen), "shimtrace install --kata --force")
	}
}

// The two ways out of a VM.
const (
	vsock  = "VSOCK"
	hybrid = "hybrid VSOCK"
)

// transport returns how agents' connections reach the host.
func transport(hypervisor string) string {
	switch hypervisor {
	case "qemu", "stratovirt":
		return vsock
	case "clh", "cloud-hypervisor", "firecracker", "dragonball", "openvmm":
		return hybrid
	}
	return ""
}

func describe(c kataconfig.Config, e kataconfig.Effective) string {
	what := "Kata"
	if c.Version != "" {
		what += " " + c.Version
	}
	what += map[string]string{"go": ", runtime in Go", "rust": ", runtime-rs"}[c.Runtime]
	if e.Hypervisor != "" {
		what += ", " + e.Hypervisor
	}
	if t := transport(e.Hypervisor); t != "" {
		what += " over " + t
	}
	if encoding := c.Encoding(); encoding != "" {
		what += ", agent's spans in " + encoding
	}
	on := map[bool]string{true: "on", false: "off"}
	return fmt.Sprintf("%s; tracing of the agent is %s, of the runtime %s", what, on[e.Agent], on[e.Runtime])
}

// vhost checks whether VMs can have a VSOCK device.
func (s *site) vhost(c kataconfig.Config) []Finding {
	if !s.live() {
		return nil
	}
	if _, err := os.Stat("/dev/vhost-vsock"); errors.Is(err, os.ErrNotExist) {
		return []Finding{{Level: Error, What: "there is no /dev/vhost-vsock, without which QEMU's VMs do not start", Where: c.File, Do: "modprobe vhost_vsock"}}
	}
	return nil
}
