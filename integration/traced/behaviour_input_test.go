package traced_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// record is a shim that writes down all that a command of the real one is given,
// and becomes it.
const record = `dir=$(mktemp -d %[1]s/XXXXXX)
for action; do :; done # the last argument
echo "$action" > $dir/action
printf '%%s\n' "$@" > $dir/args
pwd > $dir/cwd
cat /proc/$$/environ > $dir/environ
ps -o pgid= -p $$ | grep -q "^ *$$\$" && echo its own > $dir/group
here=$PWD && cd /proc/$$/fd && echo * > $dir/files && cd "$here"
case $action in start|-info) cat > $dir/stdin; exec %[2]s "$@" < $dir/stdin;; esac
exec %[2]s "$@"`

// The inner shim is given what containerd gives: arguments, input, environment,
// directory, process group and no further descriptors.
func TestInnerShimIsGivenTheSame(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		real := realShim(t, rig.Version(filepath.Base(t.Name())))
		// recorded runs a container and returns what each command was given, by action.
		recorded := func(name, runtime string, inner string) map[string]string {
			dir := filepath.Join(in.Rig.Dir, name)
			check(t, os.MkdirAll(dir, 0o700))
			check(t, os.WriteFile(inner, []byte("#!/bin/sh\n"+fmt.Sprintf(record, dir, real)+"\n"), 0o755))
			check(t, in.Rig.Ctr("run", "--rm", "--runtime", runtime, image.Busybox, "c1", "true").Check())
			until(t, "the shim to end", func() bool { return len(in.Rig.Shims()) == 0 })
			given := map[string]string{}
			calls, err := os.ReadDir(dir)
			check(t, err)
			for _, c := range calls {
				var text strings.Builder
				for _, what := range []string{"args", "cwd", "group", "files", "stdin", "environ"} {
					content, _ := os.ReadFile(filepath.Join(dir, c.Name(), what))
					parts := []string{string(content)}
					if what == "environ" {
						parts = strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00")
						slices.Sort(parts)
					}
					fmt.Fprintf(&text, "%s: %q\n", what, parts)
				}
				action, err := os.ReadFile(filepath.Join(dir, c.Name(), "action"))
				check(t, err)
				given[strings.TrimSpace(string(action))] = text.String()
			}
			return given
		}
		inner := filepath.Join(in.Rig.Dir, "recorder")
		configure(t, in, wrapping(in, inner, ""))
		bare := recorded("bare", inner, inner)
		wrapped := recorded("wrapped", in.Runtime.Shim(), inner)
		for _, action := range []string{"start", "delete"} {
			if bare[action] == "" {
				t.Errorf("%s was not called: %v", action, bare)
			}
		}
		for action, text := range bare {
			if d := diff(text, wrapped[action]); d != "" {
				t.Errorf("%s differs: %s", action, d)
			}
		}
		settle(t, in)
		if roots(t, in) != 1 {
			t.Error("the wrapped run has not been traced")
		}
	})
}
