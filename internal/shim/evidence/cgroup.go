package evidence

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Cgroup returns, as attributes, who manages the cgroup of a process of a pod, and for how
// long it was throttled (Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.stat;
// scheduler/sched-bwc.rst). It is the pod's cgroup if the process's is in one of a pod, as
// the kubelet calls them; otherwise it is the container's own.
func Cgroup(proc, cgroups string, pid int) (attrs []attribute.KeyValue) {
	text, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return nil
	}
	dir, name := cpuCgroup(text)
	if name == "" {
		return nil
	}
	if above := path.Dir(name); strings.Contains(path.Base(above), "pod") {
		name = above
	}
	manager := "cgroupfs"
	if strings.Contains(name, ".slice") || strings.Contains(name, ".scope") {
		manager = "systemd"
	}
	attrs = append(attrs, attribute.String(names.CgroupManager, manager))
	for _, root := range []string{filepath.Join(cgroups, dir), filepath.Join(cgroups, "cpu"), cgroups} {
		stat, err := os.ReadFile(filepath.Join(root, name, "cpu.stat"))
		if err != nil {
			continue
		}
		if d, ok := throttled(stat); ok {
			return append(attrs, attribute.Int64(names.Throttled, int64(d)))
		}
	}
	return attrs
}

// cpuCgroup returns the cgroup of the cpu controller, and the directory of that hierarchy:
// with cgroups of version 1 the controllers' names, with version 2 none (cgroups(7),
// /proc/PID/cgroup).
func cpuCgroup(text []byte) (dir, name string) {
	for line := range bytes.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(parts) != 3 || !path.IsAbs(parts[2]) || slices.Contains(strings.Split(parts[2], "/"), "..") {
			continue
		}
		switch {
		case slices.Contains(strings.Split(parts[1], ","), "cpu"):
			return parts[1], parts[2]
		case parts[0] == "0" && parts[1] == "":
			dir, name = "", parts[2]
		}
	}
	return dir, name
}

func throttled(stat []byte) (time.Duration, bool) {
	for line := range bytes.Lines(stat) {
		f := bytes.Fields(line)
		if len(f) != 2 {
			continue
		}
		n, err := strconv.ParseInt(string(f[1]), 10, 64)
		switch string(f[0]) {
		case "throttled_usec":
			return time.Duration(n) * time.Microsecond, err == nil
		case "throttled_time":
			return time.Duration(n), err == nil
		}
	}
	return 0, false
}
