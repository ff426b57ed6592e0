package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// What a host with many pods pays while nothing happens in them.

// settleTime is how long pods are left alone after their start: they give memory back.
const settleTime = 15 * time.Second

// idle starts pods, waits until they have settled, and prints what processor time and
// wake-ups shimtrace's processes take in the time after that.
func (c *commands) idle(pods int, during time.Duration) error {
	var lives []*life
	defer func() {
		for _, l := range lives {
			_ = l.end()
		}
	}()
	for i := range pods {
		fmt.Fprintf(os.Stderr, "\rstarting %d of %d pods ", i+1, pods)
		l := c.life("idle"+strconv.Itoa(i), c.shim)
		lives = append(lives, l)
		if err := l.start(); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "\rmeasuring %d pods for %v ", pods, during)
	time.Sleep(settleTime)
	before, err := c.spent()
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(during)
	after, err := c.spent()
	if err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Fprint(os.Stderr, "\r")
	var all time.Duration
	for _, kind := range []string{"relay", "guard", "collect", "inner shim"} {
		b, a := before[kind], after[kind]
		if a.processes == 0 {
			continue
		}
		cpu := a.cpu - b.cpu
		if kind != "inner shim" {
			all += cpu
		}
		n := float64(a.processes)
		fmt.Printf("containerd %s, %d idle pods, %d × %s: %.4f %% of a core in all, %.2f wake-ups/s each, at most %.2f\n", c.version, pods, a.processes, kind,
			percent(cpu, took), float64(a.switches-b.switches)/n/took.Seconds(), most(before, after, kind)/took.Seconds())
	}
	fmt.Printf("containerd %s, %d idle pods: shimtrace takes %.4f %% of a core in all\n", c.version, pods, percent(all, took))
	return nil
}

func percent(cpu, of time.Duration) float64 { return 100 * float64(cpu) / float64(of) }

// spent is what the processes of a kind have taken since they started.
type spent struct {
	processes int
	cpu       time.Duration
	switches  int64         // voluntary ones: waits that have ended
	each      map[int]int64 // switches by process
}

// spent returns that of all processes of the rig, by their kind.
func (c *commands) spent() (map[string]spent, error) {
	all := make(map[string]spent)
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		dir := filepath.Dir(line)
		text, err := os.ReadFile(line)
		if ns, nerr := os.Readlink(filepath.Join(dir, "ns/mnt")); err != nil || nerr != nil || ns != ours {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		p := rig.Process{PID: pid, Args: args}
		kind := ""
		switch {
		case traced.Relay.Is(p), traced.Guard.Is(p), traced.Collect.Is(p):
			kind = args[len(args)-1]
			if traced.Collect.Is(p) {
				kind = "collect"
			}
		case strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-runc-v"):
			kind = "inner shim"
		default:
			continue
		}
		cpu, switches, err := taken(dir)
		if err != nil {
			continue // it has ended
		}
		s := all[kind]
		if s.each == nil {
			s.each = make(map[int]int64)
		}
		s.processes++
		s.cpu += cpu
		s.switches += switches
		s.each[pid] = switches
		all[kind] = s
	}
	if err == nil && all["relay"].processes == 0 {
		err = errors.New("there is no relay")
	}
	return all, err
}

// most returns the most switches that one process of a kind made.
func most(before, after map[string]spent, kind string) (n float64) {
	for pid, switches := range after[kind].each {
		n = max(n, float64(switches-before[kind].each[pid]))
	}
	return n
}

// taken returns the processor time and the voluntary context switches of a process in /proc.
func taken(dir string) (cpu time.Duration, switches int64, err error) {
	threads, err := filepath.Glob(filepath.Join(dir, "task/*"))
	if err != nil || len(threads) == 0 {
		return 0, 0, errors.New("no such process")
	}
	for _, thread := range threads {
		text, err := os.ReadFile(filepath.Join(thread, "schedstat"))
		if err != nil {
			return 0, 0, err
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		cpu += time.Duration(ns)
		if text, err = os.ReadFile(filepath.Join(thread, "status")); err != nil {
			return 0, 0, err
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
				switches += n
			}
		}
	}
	return cpu, switches, nil
}
