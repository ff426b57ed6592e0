package config

import (
	"reflect"
	"slices"
	"strings"
)

// live are the keys that a running relay follows. All others a relay keeps that it has begun
// with: another one begins with the next pod.
var live = []string{
	"trace.mode", "trace.join", "trace.propagators", "trace.sampler", "trace.sampler_arg", "trace.quiet", "trace.slow",
	"agent.quiet", "jaeger.quiet", "log.level",
}

// collects are the sections that shimtrace collect follows, and relays have no use for.
var collects = []string{"export", "otlp"}

// Live returns the configuration with what is to change of it while a relay runs: the keys of
// now that a relay follows. rest are the other keys, of a relay's, in which now differs.
func (c Config) Live(now Config) (changed Config, rest []string) {
	eachKey(reflect.ValueOf(&c).Elem(), reflect.ValueOf(now), "", func(key string, own, other reflect.Value) {
		section, _, _ := strings.Cut(key, ".")
		switch {
		case reflect.DeepEqual(own.Interface(), other.Interface()), slices.Contains(collects, section):
		case slices.Contains(live, key):
			own.Set(other)
		default:
			rest = append(rest, key)
		}
	})
	if c.Shim != now.Shim {
		rest = append(rest, "shim")
	}
	return c, rest
}

// eachKey calls f with each key of the file that is below prefix, and with its values in two
// configurations.
func eachKey(own, other reflect.Value, prefix string, f func(key string, own, other reflect.Value)) {
	for i := range own.NumField() {
		name := own.Type().Field(i).Tag.Get("toml")
		if name == "" || name == "-" {
			continue
		}
		if own.Field(i).Kind() == reflect.Struct {
			eachKey(own.Field(i), other.Field(i), prefix+name+".", f)
			continue
		}
		f(prefix+name, own.Field(i), other.Field(i))
	}
}
