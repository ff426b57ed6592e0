package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

// TestEffects: every key says when another value is in effect, and there is no other key.
func TestEffects(t *testing.T) {
	cfg := reflect.ValueOf(Default())
	times := make(map[string]int)
	eachKey(cfg, cfg, "", func(key string, _, _ reflect.Value) { times[key] = 0 })
	for e, keys := range effects() {
		for _, key := range keys {
			if _, there := times[key]; !there {
				t.Errorf("%s: there is no %s", e, key)
			}
			times[key]++
		}
	}
	for key, n := range times {
		if n != 1 {
			t.Errorf("%s is classified %d times", key, n)
		}
	}
}

// TestLive: a relay follows the keys that it can, and names those that are for new pods. What
// it saves of its configuration is what it follows.
func TestLive(t *testing.T) {
	began := Default()
	forNewPods, forCollect := 0, 0
	v := reflect.ValueOf(&began).Elem()
	eachKey(v, v, "", func(key string, _, _ reflect.Value) {
		now := Default()
		n := reflect.ValueOf(&now).Elem()
		eachKey(n, n, "", func(other string, f, _ reflect.Value) {
			if other == key {
				alter(t, f)
			}
		})
		changed, rest := began.Live(now)
		followed := reflect.DeepEqual(changed, now)
		if followed != (effectOf()[key] == inRelays) || !followed && !reflect.DeepEqual(changed, began) {
			t.Errorf("%s: %+v", key, changed)
		}
		if got := slices.Equal(rest, []string{key}); got != (effectOf()[key] == inNewPods) || !got && rest != nil {
			t.Errorf("%s: for new pods are %q", key, rest)
		}
		keys := began.ForNewCollect(now)
		if got := slices.Equal(keys, []string{key}); got != (effectOf()[key] == inNewCollect) || !got && keys != nil {
			t.Errorf("%s: for a new shimtrace collect are %q", key, keys)
		}
		if saved := began.With(now.Followed()); !reflect.DeepEqual(saved, changed) {
			t.Errorf("%s: saved was %+v", key, saved)
		}
		forNewPods += len(rest)
		forCollect += len(keys)
	})
	if forNewPods == 0 || forCollect == 0 {
		t.Error("nothing is compared")
	}
	other := Default()
	other.Shim = "x"
	if changed, rest := began.Live(other); !slices.Equal(rest, []string{"shim"}) || !reflect.DeepEqual(changed, began) {
		t.Errorf("another inner shim: for new pods are %q", rest)
	}
	if got := began.With(Followed{"trace.mode": []byte("7"), "trace.slow": []byte("}")}); !reflect.DeepEqual(got, began) {
		t.Errorf("what cannot be read has become %+v", got)
	}
}

// alter gives a field another value.
func alter(t *testing.T, f reflect.Value) {
	t.Helper()
	switch f.Kind() {
	case reflect.String:
		f.SetString("other")
	case reflect.Bool:
		f.SetBool(!f.Bool())
	case reflect.Float64:
		f.SetFloat(0.5)
	case reflect.Int, reflect.Int64:
		f.SetInt(f.Int() + 5)
	case reflect.Uint32:
		f.SetUint(f.Uint() + 5)
	case reflect.Slice:
		f.Set(reflect.MakeSlice(f.Type(), 1, 1))
	case reflect.Map:
		f.Set(reflect.MakeMap(f.Type()))
		f.SetMapIndex(reflect.ValueOf("other"), reflect.New(f.Type().Elem()).Elem())
	default:
		t.Fatalf("no other value for a %s", f.Type())
	}
}

// TestSource: a configuration is read again when its file has changed, and that the file is
// gone is a mistake.
func TestSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("trace.mode = 'dynamic'")
	s := NewSource("x", func(name string) string { return map[string]string{PathEnv: path}[name] })
	if _, _, changed := s.Again(false); changed || !slices.Equal(s.Files(), []string{path}) {
		t.Errorf("nothing has changed, of %q", s.Files())
	}
	if cfg, _, changed := s.Again(true); !changed || cfg.Trace.Mode != "dynamic" {
		t.Error("somebody has told of a change")
	}
	write("trace.mode = 'static' # longer")
	if cfg, r, changed := s.Again(false); !changed || cfg.Trace.Mode != "static" || r.Err() != nil {
		t.Errorf("%+v, %v, %v", cfg.Trace, r, changed)
	}
	write("\ntrace.mode = 'x'")
	_, r, _ := s.Again(false)
	if line, column := Where(r.Err()); line != 2 || column != 14 {
		t.Errorf("line %d, column %d: %v", line, column, r.Err())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, r, changed := s.Again(false); !changed || r.Err() == nil {
		t.Errorf("the file is gone: %v", r)
	}
	if _, _, changed := s.Again(false); changed {
		t.Error("it is gone again")
	}
}
