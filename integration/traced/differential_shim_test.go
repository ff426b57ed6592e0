package traced_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// handShim is a wrapped shim that nobody but the test talks to, started as
// containerd would start it.
type handShim struct {
	*testing.T
	in        *traced.Install
	namespace string
	bundle    string
	inner     string // the inner shim's socket
	relay     string // the relay's
}

// handID is the id of every such shim's container; the namespace tells them apart.
const handID = "box"

// startByHand starts a wrapped shim in a bundle of its own.
func startByHand(t *testing.T, in *traced.Install, v rig.Version, namespace string) *handShim {
	t.Helper()
	s := &handShim{T: t, in: in, namespace: namespace, bundle: filepath.Join(in.Rig.Dir, "bundles", namespace, handID)}
	s.writeBundle()
	s.drainLog()
	s.action(s.params(v), "start")
	var state struct {
		Inner string `json:"inner_socket"`
		Relay string `json:"relay_socket"`
	}
	text, err := os.ReadFile(filepath.Join(s.bundle, "shimtrace.json"))
	check(t, err)
	check(t, json.Unmarshal(text, &state))
	s.inner, s.relay = state.Inner, state.Relay
	return s
}

// action runs a command of the shim in the bundle and returns what it answers.
func (s *handShim) action(stdin []byte, name string) []byte {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	args := []string{"-c", `cd "$0" && exec "$@"`, s.bundle, s.in.Shim,
		"-namespace", s.namespace, "-address", s.in.Rig.Address(), "-publish-binary", "/bin/true", "-id", handID, "-bundle", s.bundle, name}
	cmd := s.in.Rig.Command(ctx, "/bin/sh", args...)
	cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+s.in.Config, "NAMESPACE="+s.namespace,
		"TTRPC_ADDRESS="+s.in.Rig.Address()+".ttrpc", "GRPC_ADDRESS="+s.in.Rig.Address())
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("%s: %v\n%s", name, err, stderr.String())
	}
	return out
}

// params is what start reads: containerd before 2 has nothing to say.
func (s *handShim) params(v rig.Version) []byte {
	if v != rig.V24 {
		return nil
	}
	b, err := proto.Marshal(&bootstrap.BootstrapParams{
		InstanceID:             handID,
		Namespace:              s.namespace,
		ContainerdTtrpcAddress: s.in.Rig.Address() + ".ttrpc",
		ContainerdGrpcAddress:  s.in.Rig.Address(),
		SocketDir:              proto.String(filepath.Join(s.in.Rig.Dir, "sockets")),
	})
	check(s.T, err)
	return b
}

// writeBundle makes a container that sleeps.
func (s *handShim) writeBundle() {
	s.Helper()
	bin := filepath.Join(s.bundle, "rootfs", "bin")
	check(s.T, os.MkdirAll(bin, 0o755))
	busybox, err := os.ReadFile("/bin/busybox")
	check(s.T, err)
	check(s.T, os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755))
	for _, applet := range []string{"sh", "sleep"} {
		check(s.T, os.Symlink("busybox", filepath.Join(bin, applet)))
	}
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	out, err := s.in.Rig.Command(ctx, "runc", "spec", "--bundle", s.bundle).CombinedOutput()
	if err != nil {
		s.Fatalf("runc spec: %v\n%s", err, out)
	}
	path := filepath.Join(s.bundle, "config.json")
	text, err := os.ReadFile(path)
	check(s.T, err)
	var spec map[string]any
	check(s.T, json.Unmarshal(text, &spec))
	process := spec["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"sleep", "1000"}
	spec["linux"].(map[string]any)["cgroupsPath"] = fmt.Sprintf("/%s/%s", s.in.Rig.Name, s.namespace)
	text, err = json.Marshal(spec)
	check(s.T, err)
	check(s.T, os.WriteFile(path, text, 0o644))
}

// drainLog reads the bundle's log pipe, as containerd does.
func (s *handShim) drainLog() {
	path := filepath.Join(s.bundle, "log")
	check(s.T, syscall.Mkfifo(path, 0o700))
	log, err := os.OpenFile(path, os.O_RDWR, 0)
	check(s.T, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, log)
	}()
	s.Cleanup(func() {
		log.Close()
		<-done
	})
}

// dial connects to a socket of the shim's, which is in the rig's mount namespace.
func (s *handShim) dial(socket string) net.Conn {
	s.Helper()
	if strings.HasPrefix(socket, "/run/") {
		socket = filepath.Join(s.in.Rig.Dir, socket)
	}
	conn, err := net.DialTimeout("unix", socket, time.Minute)
	check(s.T, err)
	return conn
}
