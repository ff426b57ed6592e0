package tomltree

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	base, err := Parse([]byte("\xef\xbb\xbfa = 1\n[t]\nx = 1\ny = [1]\n[t.u]\nz = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	over, err := Parse([]byte("[t]\ny = [2]\n[t.u]\nw = 2\n[n]\nk = 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	base.Merge(over)
	want, err := Parse([]byte("a = 1\n[t]\nx = 1\ny = [2]\n[t.u]\nz = 1\nw = 2\n[n]\nk = 1\n"))
	if err != nil || !reflect.DeepEqual(base, want) {
		t.Errorf("got %v, %v", base, err)
	}
	if base.Get("t", "u", "w") != int64(2) || base.Get("t", "none", "w") != nil || base.Table("a") != nil || base.Get("a") != int64(1) {
		t.Errorf("what is there is not found in %v", base)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	for text, want := range map[string]string{"[a\n": path + " is not TOML", strings.Repeat("# …\n", MaxFile/4): "longer", "": "", "\xef\xbb\xbf": ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if want == "" && (err != nil || got == nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
	if _, err := Read(path + "x"); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[a]\nb = 1\n"), []byte("[a.b]\nc = 1\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		base, err := Parse(a)
		if err != nil {
			return
		}
		over, err := Parse(b)
		if err != nil {
			return
		}
		base.Merge(over)
		for key := range over {
			if _, ok := base[key]; !ok {
				t.Errorf("%q is lost", key)
			}
		}
	})
}
