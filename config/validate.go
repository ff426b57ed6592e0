package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Samplers are the names that [trace] sampler takes.
var Samplers = []string{
	"always_on", "always_off", "traceidratio",
	"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
}

// Propagators are the names that [trace] propagators takes.
var Propagators = []string{"tracecontext", "baggage", "jaeger", "b3", "b3multi", "none"}

// socketNameLen is the longest file name below Relay.StateDir: "/s/", 32 hex
// digits, ".sock". The kernel takes 107 bytes and a zero, containerd 106.
const socketNameLen = len("/s/") + 32 + len(".sock")

func (c *Config) validate() error {
	for _, e := range []error{
		oneOf("trace.mode", c.Trace.Mode, "static", "dynamic", "off"),
		oneOf("trace.type", c.Trace.Type, "auto", "collated", "isolated"),
		oneOf("agent.receive", c.Agent.Receive, "auto", "on", "off"),
		oneOf("agent.inject", c.Agent.Inject, "auto", "on", "off"),
		oneOf("jaeger.receive", c.Jaeger.Receive, "auto", "on", "off"),
		c.Jaeger.validate(),
		oneOf("trace.join", c.Trace.Join, "caller", "sandbox"),
		oneOf("trace.sampler", c.Trace.Sampler, Samplers...),
		oneOf("export.protocol", c.Export.Protocol, "http/protobuf", "grpc"),
		oneOf("export.compression", c.Export.Compression, "gzip", "none"),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"),
		absolute("journal.dir", c.Journal.Dir),
		absolute("relay.state_dir", c.Relay.StateDir),
		endpoint("export.endpoint", c.Export.Endpoint),
	} {
		if e != nil {
			return e
		}
	}
	for _, p := range c.Trace.Propagators {
		if err := oneOf("trace.propagators", p, Propagators...); err != nil {
			return err
		}
	}
	for vmm, path := range c.Agent.Sockets {
		if !filepath.IsAbs(path) || !strings.Contains(path, "{sandbox}") {
			return fmt.Errorf("agent.sockets.%q: %q is not an absolute path with {sandbox} in it", vmm, path)
		}
	}
	if c.Agent.Port == 0 || c.Agent.Port == math.MaxUint32 {
		return fmt.Errorf("agent.port: %d is no VSOCK port", c.Agent.Port)
	}
	if err := c.Agent.Limits.validate(); err != nil {
		return err
	}
	if c.Trace.SamplerArg < 0 || c.Trace.SamplerArg > 1 {
		return fmt.Errorf("trace.sampler_arg: %v is not a ratio from 0 to 1", c.Trace.SamplerArg)
	}
	if n := len(c.Relay.StateDir) + socketNameLen; n > 106 {
		return fmt.Errorf("relay.state_dir: %q is too long: socket paths below it would have %d bytes, at most 106 are possible", c.Relay.StateDir, n)
	}
	if c.Journal.SegmentBytes < 4<<10 {
		return fmt.Errorf("journal.segment_bytes: %d is too small, at least 4KiB", c.Journal.SegmentBytes)
	}
	if c.Journal.MaxBytes < 2*c.Journal.SegmentBytes {
		return fmt.Errorf("journal.max_bytes: %d is too small, at least twice journal.segment_bytes (%d)", c.Journal.MaxBytes, c.Journal.SegmentBytes)
	}
	return nil
}

// ownJournal reports a runtime that exports elsewhere from the common journal: a
// journal has one shipper, and that has one target.
func (c *Config) ownJournal(common Config) error {
	if reflect.DeepEqual(c.Export, common.Export) || c.Journal.Dir != common.Journal.Dir {
		return nil
	}
	return fmt.Errorf("export: it differs from the common [export], which ships the journal %s: give this runtime a dir of its own in its journal section", c.Journal.Dir)
}

// oneEndpoint reports a runtime that has another endpoint for its spans than the host.
func (c *Config) oneEndpoint(common Config) error {
	own, of := c.Jaeger, common.Jaeger
	if own.Listen == of.Listen && own.BodyBytes == of.BodyBytes && own.HeldBytes == of.HeldBytes {
		return nil
	}
	return errors.New("jaeger: the host has its endpoint once: set listen, body_bytes and held_bytes in the common [jaeger]")
}

func (l AgentLimits) validate() error {
	for key, n := range map[string]int64{
		"frame_bytes": int64(l.FrameBytes), "value_bytes": int64(l.ValueBytes),
		"spans_per_second": int64(l.SpansPerSecond), "span_burst": int64(l.SpanBurst),
		"bytes_per_second": int64(l.BytesPerSecond), "byte_burst": int64(l.ByteBurst),
		"connections": int64(l.Connections), "hold": int64(l.Hold),
		"queued_spans": int64(l.QueuedSpans), "queued_bytes": int64(l.QueuedBytes),
		"held_spans": int64(l.HeldSpans), "held_bytes": int64(l.HeldBytes),
	} {
		if n <= 0 {
			return fmt.Errorf("agent.limits.%s: %d is no limit: it must be positive", key, n)
		}
	}
	if l.ByteBurst < l.FrameBytes {
		return fmt.Errorf("agent.limits.byte_burst: %d is less than one frame may have (frame_bytes, %d)", l.ByteBurst, l.FrameBytes)
	}
	return nil
}

func (j Jaeger) validate() error {
	at, err := netip.ParseAddrPort(j.Listen)
	if err != nil || !at.Addr().IsLoopback() || at.Port() == 0 {
		return fmt.Errorf("jaeger.listen: %q is not an address of the loopback interface with a port, such as 127.0.0.1:276", j.Listen)
	}
	for key, n := range map[string]Bytes{"body_bytes": j.BodyBytes, "held_bytes": j.HeldBytes} {
		if n <= 0 {
			return fmt.Errorf("jaeger.%s: %d is no limit: it must be positive", key, n)
		}
	}
	if j.HeldBytes < j.BodyBytes {
		return fmt.Errorf("jaeger.held_bytes: %d is less than one request may have (body_bytes, %d)", j.HeldBytes, j.BodyBytes)
	}
	return nil
}

func oneOf(key, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s: %q is not one of %s", key, value, strings.Join(allowed, ", "))
}

func absolute(key, path string) error {
	if filepath.IsAbs(path) {
		return nil
	}
	return fmt.Errorf("%s: %q is not an absolute path", key, path)
}

func endpoint(key, value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("%s: %q is not a URL such as http://127.0.0.1:4318", key, value)
	}
	return nil
}
