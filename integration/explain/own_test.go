package explain_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/disk"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// TestSeededInOurs: the relay's program lies on a slow disk, and is not in the page cache.
func TestSeededInOurs(t *testing.T) {
	seeded.Quiet(t)
	d := disk.New(t)
	bin, err := traced.Bin()
	check(t, err)
	ours := t.TempDir()
	put := func(dir, program string) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(bin, program))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, program), data, 0o755))
	}
	put(ours, shimname.Program)
	put(d.Below, shimname.RelayProgram)
	check(t, os.Symlink(shimname.Program, filepath.Join(ours, shimname.Runc.Link())))
	check(t, os.Symlink(filepath.Join(d.Dir, shimname.RelayProgram), filepath.Join(ours, shimname.RelayProgram)))
	s := start(t, traced.Options{})
	s.Runtime.Path = filepath.Join(ours, shimname.Runc.Link())
	const page, slowFor = time.Millisecond, 1500 * time.Millisecond
	e := s.run("own", bundle{root: t.TempDir()}, func() func() {
		d.SlowReads(page)
		return func() {
			time.Sleep(slowFor)
			d.SlowReads(0)
		}
	})
	seeded.Named(t, seeded.Cause{ID: "shimtrace", How: fmt.Sprintf("our relay's program on a disk that takes %s for a page, for %s", page, slowFor), Parts: seeded.Runc, Also: also()}, e)
}
