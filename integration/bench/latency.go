package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// latencyBlock is how many calls are made by one way before the other has its
// turn: what the machine does meanwhile hits both.
const latencyBlock = 50

// reportLatency prints what Task/State of a running container takes, asked of the
// real shim directly and through its relay: three processes, as in a pod.
func reportLatency(r *rig.Rig, v rig.Version, id string, calls int) error {
	var relay rig.Process
	for _, p := range traced.Find(r, traced.Relay) {
		relay = p
	}
	bundle := filepath.Join(r.Dir, "state", "io.containerd.runtime.v2.task", r.Name, id)
	text, err := os.ReadFile(filepath.Join(bundle, "shimtrace.json"))
	if err != nil {
		return err
	}
	var st struct {
		Inner string `json:"inner_socket"`
		Relay string `json:"relay_socket"`
	}
	if err := json.Unmarshal(text, &st); err != nil {
		return err
	}
	service := "containerd.task.v3.Task"
	if v == rig.V17 {
		service = "containerd.task.v2.Task"
	}
	ways := []string{st.Inner, st.Relay}
	took := make([][]time.Duration, len(ways))
	clients := make([]*ttrpc.Client, len(ways))
	for i, path := range ways {
		conn, err := dialIn(relay.PID, path)
		if err != nil {
			return err
		}
		clients[i] = ttrpc.NewClient(conn)
		defer clients[i].Close()
	}
	ctx := ttrpc.WithMetadata(context.Background(), ttrpc.MD{
		"containerd-namespace-ttrpc": {r.Name},
		"traceparent":                {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	})
	for n := -latencyBlock; n < calls; n += latencyBlock {
		for i, client := range clients {
			for range latencyBlock {
				start := time.Now()
				if err := client.Call(ctx, service, "State", wrapperspb.String(id), new(emptypb.Empty)); err != nil {
					return err
				}
				if n >= 0 {
					took[i] = append(took[i], time.Since(start))
				}
			}
		}
	}
	direct50, direct99 := percentile(took[0], 50), percentile(took[0], 99)
	relayed50, relayed99 := percentile(took[1], 50), percentile(took[1], 99)
	fmt.Printf("containerd %s, Task/State, %d calls: direct p50 %.1f µs p99 %.1f µs, relayed p50 %.1f µs p99 %.1f µs, added p50 %.1f µs p99 %.1f µs\n",
		v, calls, direct50, direct99, relayed50, relayed99, relayed50-direct50, relayed99-direct99)
	return nil
}

// dialIn connects to a Unix socket as the process sees it, through a link: the
// path may be too long for an address.
func dialIn(pid int, path string) (net.Conn, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	link := filepath.Join(dir, "s")
	if err := os.Symlink(filepath.Join("/proc", strconv.Itoa(pid), "root", path), link); err != nil {
		return nil, err
	}
	return net.Dial("unix", link)
}

// percentile returns it in microseconds.
func percentile(all []time.Duration, percent int) float64 {
	slices.Sort(all)
	return float64(all[(len(all)-1)*percent/100].Nanoseconds()) / 1e3
}
