package vmshim

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Settings are what the environment of the shim, which it has from containerd,
// can ask for.
type Settings struct {
	// Agent is the agent's program; VMSHIM_AGENT. Required unless External.
	Agent string
	// AgentFlags are further flags of it; VMSHIM_AGENT_FLAGS, separated by spaces.
	AgentFlags []string
	// External: the VM is there already; VMSHIM_MODE=external instead of process.
	External bool
	// VMM is the VMM's program: this one, under a VMM's name; VMSHIM_VMM. Without it the
	// shim itself is the VMM.
	VMM string
	// Cmdline has kernel parameters of the guest, which the VMM is given; VMSHIM_CMDLINE.
	Cmdline string
	// VMMStart is how long the VMM takes before its hybrid socket appears;
	// VMSHIM_VMM_START, 0 if not set.
	VMMStart time.Duration
	// Policy: the agent is sent a policy, as Kata's Go runtime does before the sandbox is
	// created; VMSHIM_POLICY=on.
	Policy bool
	// Socket is the VMM's hybrid socket, with {sandbox} for the sandbox's id;
	// VMSHIM_SOCKET, by default Cloud Hypervisor's under Kata's Go runtime. Of an
	// external VM it can also be vsock://CID:PORT.
	Socket string
	// Boot is the time between the hybrid socket's appearance and the agent's
	// start, or before an external VM is dialled; VMSHIM_BOOT, 100ms if not set.
	Boot time.Duration
	// OneCall: the shim serves one call at a time, as Kata's Go runtime does
	// (containerd-shim-v2/service.go, s.mu); VMSHIM_ONE_CALL=on.
	OneCall bool
	// DialBackoff is how long the runtime sleeps after each attempt to reach the agent that
	// failed, as runtime-rs does (dial_timeout_ms); VMSHIM_DIAL_BACKOFF, 0 if not set: it
	// tries all the time, as the Go runtime does.
	DialBackoff time.Duration
	// Tracing is the runtime's own: one trace per sandbox, whose context goes to
	// the agent with each request; VMSHIM_TRACING=on. Kata's runtime-rs never sends
	// a context, the Go runtime only with its tracing on.
	Tracing bool
	// Jaeger is where its spans are posted, each alone and waited for, as the Go
	// runtime's are; VMSHIM_JAEGER=http://127.0.0.1:276/api/traces, nowhere if
	// not set.
	Jaeger string
	// Kill ends the VM without destroying the sandbox, as runtime-rs does;
	// VMSHIM_END=kill instead of flush.
	Kill bool
	// Output is how many bytes each process with streams writes in the VM; all that is read of it is compared. VMSHIM_OUTPUT, 0 if not set.
	// A difference is logged, and ends the VM.
	Output int
	// RuncShim is the shim that runs the containers; VMSHIM_RUNC_SHIM, by default
	// containerd-shim-runc-v2 on PATH.
	RuncShim string
}

const (
	defaultSocket = "/run/vc/vm/{sandbox}/clh.sock"
	agentPort     = 1024
	// spanPort is where the agent's spans arrive at the host.
	spanPort = 10240
)

// settingsFromEnv returns an error that names the variable with a bad value.
func settingsFromEnv() (Settings, error) {
	get := func(name, otherwise string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	var failed error
	choice := func(name, no, yes string) bool {
		v := get(name, no)
		if v != no && v != yes {
			failed = fmt.Errorf("%s=%s: want %s or %s", name, v, no, yes)
		}
		return v == yes
	}
	duration := func(name, otherwise string) time.Duration {
		d, err := time.ParseDuration(get(name, otherwise))
		if err != nil {
			failed = fmt.Errorf("%s: %w", name, err)
		}
		return d
	}
	output, err := strconv.Atoi(get("VMSHIM_OUTPUT", "0"))
	if err != nil {
		failed = fmt.Errorf("VMSHIM_OUTPUT: %w", err)
	}
	s := Settings{
		Agent:       os.Getenv("VMSHIM_AGENT"),
		AgentFlags:  strings.Fields(os.Getenv("VMSHIM_AGENT_FLAGS")),
		External:    choice("VMSHIM_MODE", "process", "external"),
		Socket:      get("VMSHIM_SOCKET", defaultSocket),
		VMM:         os.Getenv("VMSHIM_VMM"),
		Cmdline:     os.Getenv("VMSHIM_CMDLINE"),
		VMMStart:    duration("VMSHIM_VMM_START", "0s"),
		Policy:      choice("VMSHIM_POLICY", "off", "on"),
		OneCall:     choice("VMSHIM_ONE_CALL", "off", "on"),
		DialBackoff: duration("VMSHIM_DIAL_BACKOFF", "0s"),
		Boot:        duration("VMSHIM_BOOT", "100ms"),
		Tracing:     choice("VMSHIM_TRACING", "off", "on"),
		Jaeger:      os.Getenv("VMSHIM_JAEGER"),
		Kill:        choice("VMSHIM_END", "flush", "kill"),
		Output:      output,
		RuncShim:    get("VMSHIM_RUNC_SHIM", "containerd-shim-runc-v2"),
	}
	if output > 0 {
		s.AgentFlags = append(s.AgentFlags, "--stdout-bytes", strconv.Itoa(output))
	}
	if failed == nil && s.Jaeger != "" && !s.Tracing {
		failed = fmt.Errorf("VMSHIM_JAEGER=%s: nothing is traced without VMSHIM_TRACING=on", s.Jaeger)
	}
	if failed == nil && !s.External && s.Agent == "" {
		failed = fmt.Errorf("VMSHIM_AGENT is not set: it names the program that is the VM's agent")
	}
	return s, failed
}

func (s Settings) socket(sandbox string) string {
	return strings.ReplaceAll(s.Socket, "{sandbox}", sandbox)
}
