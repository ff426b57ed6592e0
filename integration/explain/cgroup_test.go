package explain_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const cgroups = "/sys/fs/cgroup"

// period is the kernel's own for limits of CPU time.
const period = 100 * time.Millisecond

// limited makes a cgroup below another one until the test's end, whose processes may use
// so much CPU time in each period, as kubelet makes one for a pod with limits.
func limited(t *testing.T, parent, name string, quota time.Duration) (path string) {
	t.Helper()
	write := func(file, text string) {
		t.Helper()
		check(t, os.WriteFile(file, []byte(text), 0o644))
	}
	path = filepath.Join("/", parent, name)
	dir := filepath.Join(cgroups, "cpu", path)
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		dir = filepath.Join(cgroups, path)
		check(t, os.MkdirAll(dir, 0o755))
		write(filepath.Join(cgroups, "cgroup.subtree_control"), "+cpu")
		write(filepath.Join(cgroups, parent, "cgroup.subtree_control"), "+cpu")
		write(filepath.Join(dir, "cpu.max"), fmt.Sprint(quota.Microseconds(), period.Microseconds()))
	} else {
		check(t, os.MkdirAll(dir, 0o755))
		write(filepath.Join(dir, "cpu.cfs_quota_us"), fmt.Sprint(quota.Microseconds()))
	}
	t.Cleanup(func() {
		// runc has made it in every other hierarchy.
		all, _ := filepath.Glob(filepath.Join(cgroups, "*", path))
		for _, dir := range append(all, filepath.Join(cgroups, path)) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("remove the cgroup: %v", err)
			}
		}
	})
	return path
}
