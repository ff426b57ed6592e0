package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// samplers are the names that [trace] sampler takes.
var samplers = []string{
	"always_on", "always_off", "traceidratio",
	"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
}

// propagators are the names that [trace] propagators takes.
var propagators = []string{"tracecontext", "baggage", "jaeger", "b3", "b3multi", "none"}

// protocols are the names that [export] protocol takes.
var protocols = []string{"http/protobuf", "grpc", "zipkin"}

// socketNameLen is the length of the longest socket name below Relay.StateDir: "/s/",
// 32 hex digits, ".sock". The kernel allows 107 bytes and a zero, containerd 106.
const socketNameLen = len("/s/") + 32 + len(".sock")

// maxReady bounds how long a container's start may have to wait.
const maxReady = 30 * time.Second

// violation is a rule that a configuration breaks, and the keys that may be the cause.
type violation struct {
	keys [][]string
	err  error
}

// rules collects violations.
type rules []violation

// want records err, unless it is nil, for the keys.
func (r *rules) want(err error, keys ...string) {
	if err == nil {
		return
	}
	v := violation{err: err}
	for _, key := range keys {
		v.keys = append(v.keys, strings.Split(key, "."))
	}
	*r = append(*r, v)
}

func (r *rules) oneOf(key, value string, allowed ...string) { r.want(oneOf(value, allowed...), key) }

// violations returns the rules that c breaks.
func (c *Config) violations() []violation {
	var r rules
	r.oneOf("trace.mode", c.Trace.Mode, "static", "dynamic", "off")
	r.oneOf("trace.type", c.Trace.Type, "auto", "collated", "isolated")
	r.oneOf("trace.join", c.Trace.Join, "caller", "sandbox")
	r.oneOf("trace.sampler", c.Trace.Sampler, samplers...)
	for _, p := range c.Trace.Propagators {
		r.oneOf("trace.propagators", p, propagators...)
	}
	r.want(ratio(c.Trace.SamplerArg), "trace.sampler_arg")
	r.oneOf("agent.receive", c.Agent.Receive, "auto", "on", "off")
	r.oneOf("agent.inject", c.Agent.Inject, "auto", "on", "off")
	for _, vmm := range slices.Sorted(maps.Keys(c.Agent.Sockets)) {
		if path := c.Agent.Sockets[vmm]; !filepath.IsAbs(path) || !strings.Contains(path, "{sandbox}") {
			r = append(r, violation{[][]string{{"agent", "sockets", vmm}}, fmt.Errorf("%q is not an absolute path with {sandbox} in it", path)})
		}
	}
	if c.Agent.Port == 0 || c.Agent.Port == math.MaxUint32 {
		r.want(fmt.Errorf("%d is no VSOCK port", c.Agent.Port), "agent.port")
	}
	c.Agent.Limits.check(&r)
	r.oneOf("jaeger.receive", c.Jaeger.Receive, "auto", "on", "off")
	c.Jaeger.check(&r)
	c.OTLP.check(&r)
	c.Export.Target.check(&r, c.OTLP, "export")
	c.Export.checkTargets(&r, c.OTLP)
	r.oneOf("metrics.send", c.Metrics.Send, "on", "off")
	r.want(positive(int64(c.Metrics.Interval)), "metrics.interval")
	r.oneOf("process.record", c.Process.Record, "auto", "off")
	r.oneOf("export.only", c.Export.Only, "all", "slow", "failed")
	if !(c.Export.Ratio >= 0 && c.Export.Ratio <= 1) {
		r.want(fmt.Errorf("%v is no part of a whole: write a number from 0 to 1", c.Export.Ratio), "export.ratio")
	}
	c.Journal.check(&r)
	r.want(absolute(c.Relay.StateDir), "relay.state_dir")
	if n := len(filepath.Clean(c.Relay.StateDir)) + socketNameLen; n > 106 {
		r.want(fmt.Errorf("%q is too long: socket paths below it would have %d bytes, at most 106 are possible", c.Relay.StateDir, n), "relay.state_dir")
	}
	if d := time.Duration(c.Relay.ReadyTimeout); d <= 0 || d > maxReady {
		r.want(fmt.Errorf("%s is not a time that a container can wait: at most %s", d, maxReady), "relay.ready_timeout")
	}
	r.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	return r
}

func (l AgentLimits) check(r *rules) {
	const table = "agent.limits."
	v := reflect.ValueOf(l)
	for i := range v.NumField() {
		r.want(positive(v.Field(i).Int()), table+v.Type().Field(i).Tag.Get("toml"))
	}
	if l.ByteBurst < l.FrameBytes {
		r.want(fmt.Errorf("%d is less than one frame may have (frame_bytes, %d)", l.ByteBurst, l.FrameBytes), table+"byte_burst", table+"frame_bytes")
	}
}

func (j Jaeger) check(r *rules) {
	if !loopback(j.Listen) {
		r.want(fmt.Errorf("%q is not an address of the loopback interface with a port, such as 127.0.0.1:276", j.Listen), "jaeger.listen")
	}
	r.want(positive(int64(j.BodyBytes)), "jaeger.body_bytes")
	r.want(positive(int64(j.HeldBytes)), "jaeger.held_bytes")
	if j.HeldBytes < j.BodyBytes {
		r.want(fmt.Errorf("%d is less than one request may have (body_bytes, %d)", j.HeldBytes, j.BodyBytes), "jaeger.held_bytes", "jaeger.body_bytes")
	}
}

func (o OTLP) check(r *rules) {
	for _, address := range o.Listen {
		r.want(CheckOTLP(address), "otlp.listen")
	}
	r.want(positive(int64(o.BodyBytes)), "otlp.body_bytes")
	r.want(positive(int64(o.BytesPerSecond)), "otlp.bytes_per_second")
	const most = 1 << 30
	if o.BodyBytes > most {
		r.want(fmt.Errorf("%d is more than a post may have: at most 1GiB", o.BodyBytes), "otlp.body_bytes")
	}
}

// CheckOTLP returns why nothing can listen at an address of [otlp]; nil if that is
// possible.
func CheckOTLP(address string) error {
	if path, ok := UnixPath(address); ok {
		return absolute(path)
	}
	if !loopback(address) {
		return fmt.Errorf("%q is neither a Unix socket, such as unix:/run/shimtrace/otlp.sock, nor an address of the loopback interface with a port, such as 127.0.0.1:4317", address)
	}
	return nil
}

// loopback reports whether the text is an address of the loopback interface with a port.
func loopback(text string) bool {
	at, err := netip.ParseAddrPort(text)
	return err == nil && at.Addr().IsLoopback() && at.Port() != 0
}

func (j Journal) check(r *rules) {
	r.want(absolute(j.Dir), "journal.dir")
	if j.SegmentBytes < 4<<10 {
		r.want(fmt.Errorf("%d is too small, at least 4KiB", j.SegmentBytes), "journal.segment_bytes")
	}
	if j.MaxBytes/2 < j.SegmentBytes {
		r.want(fmt.Errorf("%d is too small, at least twice journal.segment_bytes (%d)", j.MaxBytes, j.SegmentBytes), "journal.max_bytes", "journal.segment_bytes")
	}
}

// onceAHost returns the keys that a runtime sets differently although all runtimes of a
// host share them.
func (c *Config) onceAHost(common Config) []violation {
	var r rules
	if c.Relay.StateDir != common.Relay.StateDir {
		r.want(errors.New("relays and shimtrace find each other there: set it in the common [relay]"), "relay.state_dir")
	}
	err := errors.New("the host has its endpoint once: set listen, body_bytes and held_bytes in the common [jaeger]")
	own, of := c.Jaeger, common.Jaeger
	if own.Listen != of.Listen {
		r.want(err, "jaeger.listen")
	}
	if own.BodyBytes != of.BodyBytes {
		r.want(err, "jaeger.body_bytes")
	}
	if own.HeldBytes != of.HeldBytes {
		r.want(err, "jaeger.held_bytes")
	}
	if !reflect.DeepEqual(c.OTLP, common.OTLP) {
		r.want(errors.New("the host has its OTLP endpoint once: set it in the common [otlp]"), "otlp.listen", "otlp.users", "otlp.body_bytes", "otlp.bytes_per_second")
	}
	return r
}

// journals records who ships each journal where: a journal is shipped to the same targets,
// whoever writes to it.
type journals map[string]struct {
	who    string
	export Export
}

// add returns an error if the journal is already shipped elsewhere.
func (j journals) add(who string, c Config) error {
	first, there := j[c.Journal.Dir]
	if !there {
		first.who, first.export = who, c.Export
		j[c.Journal.Dir] = first
		return nil
	}
	if reflect.DeepEqual(first.export, c.Export) {
		return nil
	}
	return fmt.Errorf("it differs from the export of %s, and both have the journal %s, which is shipped as one: give this runtime a dir of its own in its journal section", first.who, c.Journal.Dir)
}

func oneOf(value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s", value, strings.Join(allowed, ", "))
}

func absolute(path string) error {
	if filepath.IsAbs(path) {
		return nil
	}
	return fmt.Errorf("%q is not an absolute path", path)
}

func positive(n int64) error {
	if n > 0 {
		return nil
	}
	return fmt.Errorf("%d is no limit: it must be positive", n)
}

// ratio returns an error unless r is a ratio; comparisons with NaN are false.
func ratio(r float64) error {
	if r >= 0 && r <= 1 {
		return nil
	}
	return fmt.Errorf("%v is not a ratio from 0 to 1", r)
}
