package config

import (
	"encoding/json"
	"reflect"
	"sync"
)

// An effect says when a new value of a key takes effect, in the words of
// docs/configuration.md.
type effect string

const (
	// inRelays: running relays follow it, and so does shimtrace collect as far as the key
	// concerns it.
	inRelays effect = "running pods"
	// inNewPods: a relay keeps what it has begun with.
	inNewPods effect = "new pods"
	// inCollect: shimtrace collect follows it. Relays have no use for it.
	inCollect effect = "`collect`"
	// inNewCollect: shimtrace collect keeps what it has begun with.
	inNewCollect effect = "new `collect`"
)

// effects returns the keys of the file, by when a new value takes effect.
func effects() map[effect][]string {
	return map[effect][]string{
		inRelays: {
			"trace.mode", "trace.join", "trace.propagators", "trace.sampler", "trace.sampler_arg", "trace.quiet", "trace.slow",
			"agent.keep", "agent.quiet", "jaeger.quiet", "log.level",
			"agent.limits.frame_bytes", "agent.limits.value_bytes", "agent.limits.spans_per_second", "agent.limits.span_burst",
			"agent.limits.bytes_per_second", "agent.limits.byte_burst", "agent.limits.connections", "agent.limits.queued_bytes",
			"agent.limits.held_spans", "agent.limits.held_bytes", "agent.limits.hold",
		},
		inNewPods: {
			"trace.type", "trace.annotations",
			"agent.receive", "agent.sockets", "agent.users", "agent.inject", "agent.port", "agent.limits.queued_spans",
			"jaeger.receive", "jaeger.listen", "process.record", "export.shipper",
			"journal.dir", "journal.max_bytes", "journal.segment_bytes", "relay.state_dir", "relay.ready_timeout", "resource",
		},
		inCollect: {
			"export.preset", "export.endpoint", "export.protocol", "export.headers", "export.header_files", "export.ca", "export.cert",
			"export.key", "export.insecure", "export.timeout", "export.compression",
			"export.target", "export.only", "export.slow_start", "export.ratio",
			"otlp.listen", "otlp.users", "metrics.send", "metrics.interval",
		},
		inNewCollect: {"jaeger.body_bytes", "jaeger.held_bytes", "otlp.body_bytes", "otlp.bytes_per_second"},
	}
}

// effectOf returns effects by key. It is made when it is needed: each process of a pod has this
// package, and containerd waits while it is initialized.
var effectOf = sync.OnceValue(func() map[string]effect {
	all := make(map[string]effect)
	for e, keys := range effects() {
		for _, key := range keys {
			all[key] = e
		}
	}
	return all
})

// Live returns the configuration with now's values of the keys that a running relay follows.
// rest are the other keys in which now differs and that take effect in new pods.
func (c Config) Live(now Config) (changed Config, rest []string) {
	eachKey(reflect.ValueOf(&c).Elem(), reflect.ValueOf(now), "", func(key string, own, other reflect.Value) {
		switch {
		case reflect.DeepEqual(own.Interface(), other.Interface()):
		case effectOf()[key] == inRelays:
			own.Set(other)
		case effectOf()[key] == inNewPods:
			rest = append(rest, key)
		}
	})
	if c.Shim != now.Shim {
		rest = append(rest, "shim")
	}
	return c, rest
}

// ForNewCollect returns the keys in which now differs and that a running shimtrace collect
// does not follow.
func (c Config) ForNewCollect(now Config) (keys []string) {
	eachKey(reflect.ValueOf(c), reflect.ValueOf(now), "", func(key string, own, other reflect.Value) {
		if effectOf()[key] == inNewCollect && !reflect.DeepEqual(own.Interface(), other.Interface()) {
			keys = append(keys, key)
		}
	})
	return keys
}

// Followed is what a configuration says of the keys that relays follow, by key, in JSON.
type Followed map[string]json.RawMessage

// Followed returns what the configuration says of the keys that relays follow.
func (c Config) Followed() Followed {
	all := make(Followed)
	v := reflect.ValueOf(c)
	eachKey(v, v, "", func(key string, own, _ reflect.Value) {
		if effectOf()[key] != inRelays {
			return
		}
		if text, err := json.Marshal(own.Interface()); err == nil {
			all[key] = text
		}
	})
	return all
}

// With returns the configuration with what another one said of the keys that relays follow. A
// key that is missing or cannot be read keeps its own value.
func (c Config) With(followed Followed) Config {
	v := reflect.ValueOf(&c).Elem()
	eachKey(v, v, "", func(key string, own, _ reflect.Value) {
		if effectOf()[key] != inRelays {
			return
		}
		if was := reflect.New(own.Type()); json.Unmarshal(followed[key], was.Interface()) == nil {
			own.Set(was.Elem())
		}
	})
	return c
}

// eachKey calls f with each key of the file that is below prefix, and with its values in two
// configurations.
func eachKey(own, other reflect.Value, prefix string, f func(key string, own, other reflect.Value)) {
	for i := range own.NumField() {
		field := own.Type().Field(i)
		name := field.Tag.Get("toml")
		switch {
		case field.Anonymous:
			eachKey(own.Field(i), other.Field(i), prefix, f)
		case name == "" || name == "-":
		case field.Type.Kind() == reflect.Struct:
			eachKey(own.Field(i), other.Field(i), prefix+name+".", f)
		default:
			f(prefix+name, own.Field(i), other.Field(i))
		}
	}
}
