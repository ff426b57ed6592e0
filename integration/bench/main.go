// Command bench measures what the wrapper costs a container, against the bare
// shim, in one run: time from run to running, the relay's memory, and what it adds
// to a call.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == commandsFlag {
		if err := runCommands(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 40, "containers of each kind")
	calls := flag.Int("calls", 10000, "calls by each way")
	only := flag.Bool("only-commands", false, "measure only the shim's commands, start and delete, with another container on the host")
	builds := flag.String("builds", "", "with -only-commands: directories with other builds of our programs, and the links to them, to measure as well; separated by colons")
	pods := flag.Int("idle", 0, "measure only so many idle pods")
	during := flag.Duration("for", time.Minute, "how long idle pods are measured")
	version := flag.String("containerd", "", "only with this version of containerd")
	flag.Parse()
	var err error
	if *pods > 0 {
		err = measureIdle(context.Background(), *pods, *during)
	} else {
		err = run(context.Background(), rig.Version(*version), *rounds, *calls, *only, *builds)
	}
	traced.Clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, version rig.Version, rounds, calls int, only bool, builds string) error {
	for _, v := range []rig.Version{rig.V24, rig.V17} {
		if version != "" && v != version {
			continue
		}
		if err := measure(ctx, v, rounds, calls, only, builds); err != nil {
			return fmt.Errorf("containerd %s: %w", v, err)
		}
	}
	return nil
}

// install returns shimtrace in a rig whose files are where a host has them: in memory what is
// in /run, such as bundles and the state directory, and on disk the programs and the journal.
// The caller closes it, and then calls clean.
func install(ctx context.Context, v rig.Version, config string) (in *traced.Install, clean func(), err error) {
	if _, err := traced.Bin(); err != nil {
		return nil, nil, err
	}
	journal, err := os.MkdirTemp("", "shimtrace-journal-")
	if err != nil {
		return nil, nil, err
	}
	disk := os.TempDir()
	defer os.Setenv("TMPDIR", disk)
	os.Setenv("TMPDIR", memoryDir)
	in, err = traced.New(ctx, traced.Options{Options: rig.Options{Version: v}, Config: config, Journal: journal})
	if err != nil {
		os.RemoveAll(journal)
	}
	return in, func() { os.RemoveAll(journal) }, err
}

// memoryDir is of a file system in memory.
const memoryDir = "/dev/shm"

// measureIdle measures pods as a host has them: quiet calls are quiet.
func measureIdle(ctx context.Context, pods int, during time.Duration) (err error) {
	in, clean, err := install(ctx, rig.V24, "")
	if err != nil {
		return err
	}
	defer clean()
	defer func() {
		if cerr := in.Close(); err == nil {
			err = cerr
		}
	}()
	return reportIdle(in, rig.V24, pods, during)
}

func measure(ctx context.Context, v rig.Version, rounds, calls int, only bool, builds string) (err error) {
	in, clean, err := install(ctx, v, "[trace]\nquiet = []\n") // so that State is recorded as other calls are
	if err != nil {
		return err
	}
	defer clean()
	defer func() {
		if cerr := in.Close(); err == nil {
			err = cerr
		}
	}()
	if err := reportCommands(in, v, rounds, true, builds); err != nil || only {
		return err
	}
	if err := reportCommands(in, v, rounds, false, ""); err != nil {
		return err
	}
	// Both kinds take turns, and which goes first alternates: what the machine
	// does meanwhile hits both.
	kinds := []kind{{"bare", rig.Runc.Shim()}, {"wrapped", in.Runtime.Shim()}}
	took := map[string][]time.Duration{}
	var added []time.Duration
	for i := range rounds + 2 {
		fmt.Fprintf(os.Stderr, "\rcontainerd %s: %d of %d ", v, i, rounds+2)
		round := map[string]time.Duration{}
		for k := range kinds {
			kind := kinds[(i+k)%2]
			id := fmt.Sprintf("%s%d", kind.name, i)
			res := in.Rig.Ctr("run", "-d", "--runtime", kind.shim, image.Busybox, id, "sleep", "1000")
			if err := res.Check(); err != nil {
				return err
			}
			round[kind.name] = res.Took
			if kind.name == "wrapped" && i == rounds+1 {
				fmt.Fprint(os.Stderr, "\r")
				if err := reportMemory(in.Rig, v); err != nil {
					return err
				}
				if err := reportLatency(in.Rig, v, id, calls); err != nil {
					return err
				}
			}
			for _, args := range [][]string{{"task", "kill", "-s", "KILL", id}, {"task", "delete", "-f", id}, {"container", "delete", id}} {
				_ = in.Rig.Ctr(args...)
			}
		}
		if i < 2 {
			continue // the caches are cold
		}
		for name, d := range round {
			took[name] = append(took[name], d)
		}
		added = append(added, round["wrapped"]-round["bare"])
	}
	fmt.Printf("containerd %s, ctr run -d to running, %d of each: bare p50 %s p90 %s, wrapped p50 %s p90 %s, added p50 %s\n", v, rounds,
		ms(took["bare"], 50), ms(took["bare"], 90), ms(took["wrapped"], 50), ms(took["wrapped"], 90), ms(added, 50))
	return nil
}

func ms(all []time.Duration, percent int) string { return msOf(at(all, percent)) }

func msOf(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// reportMemory prints the memory of the relays, of the inner shims, which stand beside
// them in every pod, and of the guard.
func reportMemory(r *rig.Rig, v rig.Version) error {
	for _, p := range r.Shims() {
		kind := "inner shim of a running container"
		switch {
		case traced.Relay.Is(p):
			kind = "relay of a running container"
		case traced.Guard.Is(p):
			kind = "guard"
		}
		rss, anon, err := memory(p.PID)
		if err != nil {
			return err
		}
		fmt.Printf("containerd %s, %s: RSS %.1f MB, anonymous %.1f MB\n", v, kind, rss, anon)
	}
	return nil
}

// memory returns the resident and the anonymous memory of a process in MB (10^6
// bytes), as /proc/PID/smaps_rollup has them.
func memory(pid int) (rss, anon float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Rss:":
			rss = kb * 1024 / 1e6
		case "Anonymous:":
			anon = kb * 1024 / 1e6
		}
	}
	return rss, anon, nil
}
