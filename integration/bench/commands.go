package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// What the commands of a shim take, which containerd waits for. They are run as containerd
// runs them, by a process in the rig's namespaces with nothing in between.

// commandsFlag makes this program that process.
const commandsFlag = "-commands"

// reportCommands prints what start and delete take of bare shims and of wrapped ones, and
// how long it is from the start of the shim to a running container. There is one wrapped
// container meanwhile, if the host is to have others.
func reportCommands(in *traced.Install, v rig.Version, rounds int, others bool, builds string) error {
	return inside(in, v, "-rounds", strconv.Itoa(rounds), "-others="+strconv.FormatBool(others), "-builds", builds)
}

// reportIdle prints what pods take in which nothing happens.
func reportIdle(in *traced.Install, v rig.Version, pods int, during time.Duration) error {
	return inside(in, v, "-pods", strconv.Itoa(pods), "-for", during.String())
}

// inside runs that process.
func inside(in *traced.Install, v rig.Version, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := in.Rig.Command(ctx, self, append([]string{commandsFlag,
		"-dir", in.Rig.Dir, "-name", in.Rig.Name, "-version", string(v), "-shim", in.Shim, "-config", in.Config}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// commands is that process.
type commands struct {
	dir, name, shim, config, version string
	others                           bool
	spec                             []byte
}

// kind is a shim that is compared.
type kind struct{ name, shim string }

// runCommands is its main.
func runCommands(args []string) error {
	var c commands
	flags := flag.NewFlagSet(commandsFlag, flag.ExitOnError)
	rounds := flags.Int("rounds", 40, "")
	flags.StringVar(&c.dir, "dir", "", "")
	flags.StringVar(&c.name, "name", "", "")
	flags.StringVar(&c.shim, "shim", "", "")
	flags.StringVar(&c.config, "config", "", "")
	flags.StringVar(&c.version, "version", "", "")
	flags.BoolVar(&c.others, "others", true, "")
	builds := flags.String("builds", "", "")
	pods := flags.Int("pods", 0, "")
	during := flags.Duration("for", time.Minute, "")
	_ = flags.Parse(args)
	if err := c.readSpec(); err != nil {
		return err
	}
	if *pods > 0 {
		return c.idle(*pods, *during)
	}
	bare, err := exec.LookPath("containerd-shim-runc-v2")
	if err != nil {
		return err
	}
	beside := "the only container of its host"
	if c.others {
		beside = "another container on its host"
		other := c.life("other", c.shim)
		if err := other.start(); err != nil {
			return err
		}
		defer func() { _ = other.end() }()
		time.Sleep(rest)
	}
	kinds := []kind{{"bare", bare}, {"wrapped", c.shim}}
	for _, dir := range filepath.SplitList(*builds) {
		kinds = append(kinds, kind{filepath.Base(dir), filepath.Join(dir, filepath.Base(c.shim))})
	}
	took := map[string]map[string][]time.Duration{}
	for i := range *rounds + warmUp {
		fmt.Fprintf(os.Stderr, "\rcontainerd %s, commands: %d of %d ", c.version, i, *rounds+warmUp)
		for _, k := range rand.Perm(len(kinds)) { // what one leaves behind is in the way of the next
			kind := kinds[k]
			l := c.life(kind.name+strconv.Itoa(i), kind.shim)
			if err := errors.Join(l.start(), l.end()); err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			for what, d := range l.took {
				if took[what] == nil {
					took[what] = map[string][]time.Duration{}
				}
				if i >= warmUp {
					took[what][kind.name] = append(took[what][kind.name], d)
				}
			}
			time.Sleep(rest)
		}
	}
	fmt.Fprint(os.Stderr, "\r")
	for _, what := range []string{startTook, callTook, runTook, deleteTook} {
		bare := took[what][kinds[0].name]
		for _, kind := range kinds[1:] {
			wrapped := took[what][kind.name]
			var added []time.Duration
			for i, d := range wrapped {
				added = append(added, d-bare[i])
			}
			fmt.Printf("containerd %s, %s, %d of each, %s: bare p50 %s p90 %s, %s p50 %s p90 %s, added p50 %s, p90 %s, median of pairs %s\n",
				c.version, what, *rounds, beside, ms(bare, 50), ms(bare, 90), kind.name, ms(wrapped, 50), ms(wrapped, 90),
				msOf(at(wrapped, 50)-at(bare, 50)), msOf(at(wrapped, 90)-at(bare, 90)), ms(added, 50))
		}
	}
	return nil
}

const (
	// warmUp is how many rounds are not counted: the caches are cold.
	warmUp = 3
	// rest is how long what a command has left behind it may go on before the next one
	// is measured.
	rest = 60 * time.Millisecond
)

// What is measured.
const (
	startTook  = "start"
	callTook   = "start and the first call"
	runTook    = "start to a running container"
	deleteTook = "delete"
)

func (c *commands) readSpec() error {
	dir, err := os.MkdirTemp(c.dir, "spec")
	if err != nil {
		return err
	}
	if out, err := exec.Command("runc", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("runc spec: %w: %s", err, out)
	}
	c.spec, err = os.ReadFile(filepath.Join(dir, "config.json"))
	return err
}

// life is that of one container with a shim of its own.
type life struct {
	*commands
	id, path, bundle string
	log              *os.File
	client           *ttrpc.Client
	service          string
	took             map[string]time.Duration
}

func (c *commands) life(id, shim string) *life {
	l := &life{commands: c, id: id, path: shim, bundle: filepath.Join(c.dir, "bundles", c.name, id), took: map[string]time.Duration{}, service: "containerd.task.v3.Task"}
	if c.version == string(rig.V17) {
		l.service = "containerd.task.v2.Task"
	}
	return l
}

// write makes the bundle.
func (l *life) write() error {
	bin := filepath.Join(l.bundle, "rootfs", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "sleep"), busybox, 0o755); err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(l.spec, &spec); err != nil {
		return err
	}
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"sleep", "1000"}
	spec["linux"].(map[string]any)["cgroupsPath"] = "/" + l.name + "/" + l.id
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.bundle, "config.json"), text, 0o644); err != nil {
		return err
	}
	pipe := filepath.Join(l.bundle, "log")
	if err := syscall.Mkfifo(pipe, 0o700); err != nil {
		return err
	}
	if l.log, err = os.OpenFile(pipe, os.O_RDWR, 0); err != nil {
		return err
	}
	go io.Copy(io.Discard, l.log)
	return nil
}

// command is one of the shim's, as containerd's package core/runtime/v2 makes it.
func (l *life) command(action string) *exec.Cmd {
	address := filepath.Join(l.dir, "c.sock")
	args := []string{"-namespace", l.name, "-address", address, "-publish-binary", "/bin/true", "-id", l.id}
	if action == "delete" {
		args = append(args, "-bundle", l.bundle)
	}
	cmd := exec.Command(l.path, append(args, action)...)
	cmd.Dir = l.bundle
	cmd.Env = append(os.Environ(), "SHIMTRACE_CONFIG="+l.config, "GOMAXPROCS=2", "MAX_SHIM_VERSION=2",
		"TTRPC_ADDRESS="+address+".ttrpc", "GRPC_ADDRESS="+address, "NAMESPACE="+l.name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// start is the shim's start, the first call, and the container's.
func (l *life) start() error {
	if err := l.write(); err != nil {
		return err
	}
	cmd := l.command("start")
	if l.version == string(rig.V24) {
		address := filepath.Join(l.dir, "c.sock")
		params, err := proto.Marshal(&bootstrap.BootstrapParams{
			InstanceID: l.id, Namespace: l.name, ContainerdTtrpcAddress: address + ".ttrpc", ContainerdGrpcAddress: address,
		})
		if err != nil {
			return err
		}
		cmd.Stdin = bytes.NewReader(params)
	}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	l.took[startTook] = time.Since(began)
	if err != nil {
		return fmt.Errorf("start: %w: %s", err, out)
	}
	conn, err := net.Dial("unix", l.socket(out))
	if err != nil {
		return err
	}
	l.client = ttrpc.NewClient(conn)
	_ = l.call("State", &taskv2.StateRequest{ID: l.id}, &taskv2.StateResponse{}) // not found
	l.took[callTook] = time.Since(began)
	if err := l.call("Create", &taskv2.CreateTaskRequest{ID: l.id, Bundle: l.bundle}, &taskv2.CreateTaskResponse{}); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := l.call("Start", &taskv2.StartRequest{ID: l.id}, &taskv2.StartResponse{}); err != nil {
		return fmt.Errorf("start the container: %w", err)
	}
	l.took[runTook] = time.Since(began)
	return nil
}

// socket is the path that start has answered.
func (l *life) socket(out []byte) string {
	address := strings.TrimSpace(string(out))
	var result bootstrap.BootstrapResult
	if !strings.HasPrefix(address, "unix://") && proto.Unmarshal(out, &result) == nil {
		address = result.GetAddress()
	}
	return strings.TrimPrefix(address, "unix://")
}

// end has the container killed and deleted, the shim ended, and what it has left cleaned up
// by the shim's delete.
func (l *life) end() error {
	if l.client == nil {
		return errors.New("it has not started")
	}
	defer l.log.Close()
	defer os.RemoveAll(l.bundle)
	if err := l.call("Kill", &taskv2.KillRequest{ID: l.id, Signal: uint32(syscall.SIGKILL)}, nil); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if err := l.call("Wait", &taskv2.WaitRequest{ID: l.id}, &taskv2.WaitResponse{}); err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	if err := l.call("Delete", &taskv2.DeleteRequest{ID: l.id}, &taskv2.DeleteResponse{}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	_ = l.call("Shutdown", &taskv2.ShutdownRequest{ID: l.id}, nil)
	l.client.Close()
	cmd := l.command("delete")
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	began := time.Now()
	err := cmd.Run()
	l.took[deleteTook] = time.Since(began)
	if err != nil {
		return fmt.Errorf("delete: %w: %s", err, &stderr)
	}
	return nil
}

func (l *life) call(method string, request, response proto.Message) error {
	ctx, cancel := context.WithTimeout(ttrpc.WithMetadata(context.Background(), ttrpc.MD{"containerd-namespace-ttrpc": {l.name}}), 20*time.Second)
	defer cancel()
	if response == nil {
		response = &taskv2.StateResponse{}
	}
	return l.client.Call(ctx, l.service, method, request, response)
}

// at returns a percentile.
func at(all []time.Duration, percent int) time.Duration {
	all = slices.Sorted(slices.Values(all))
	return all[(len(all)-1)*percent/100]
}
