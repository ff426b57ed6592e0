package explain_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
)

// frozenFor is how long something stands still while a container starts: also on a busy
// machine too long for the want of a CPU.
const frozenFor = 5 * time.Second

// frozen freezes a disk, and returns what thaws it after that time.
func frozen(t *testing.T, freeze, thaw func()) func() {
	t.Helper()
	freeze()
	return func() {
		time.Sleep(frozenFor)
		thaw()
	}
}

// runOn runs a container whose root file system these mounts make, as a snapshotter
// returns them, with do meanwhile, and explains its start.
func (s *site) runOn(id string, rootfs []*types.Mount, do func()) *explain.Explanation {
	s.Helper()
	conn, err := grpc.NewClient("unix://"+s.Rig.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(s.T, err)
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(s.Context(), "containerd-namespace", s.Rig.Name)
	spec := s.spec(id, bundle{root: "rootfs"})
	_, err = containersapi.NewContainersClient(conn).Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: id, Spec: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: spec},
		Runtime: &containersapi.Container_Runtime{Name: s.Runtime.Shim()},
	}})
	check(s.T, err)
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	defer func() { <-done }()
	tasks := tasksapi.NewTasksClient(conn)
	_, err = tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: id, Rootfs: rootfs})
	check(s.T, err)
	_, err = tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id})
	check(s.T, err)
	_, err = tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
	check(s.T, err)
	_, err = tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	check(s.T, err)
	return s.explained(id, called)
}

// TestSeededMounts: the disk of a snapshotter is frozen while the root file system is
// mounted, by containerd's mount manager or by the shim.
func TestSeededMounts(t *testing.T) {
	seeded.Quiet(t)
	dir, freeze, thaw := disktest.Ext4(t)
	s := start(t, traced.Options{})
	// containerd makes file systems below its root only.
	snapshots := filepath.Join(s.Rig.Dir, "root", "disk")
	check(t, os.Mkdir(snapshots, 0o700))
	in := func(program string, args ...string) {
		t.Helper()
		out, err := s.Rig.Command(t.Context(), program, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v: %s", program, args, err, out)
		}
	}
	in("mount", "--bind", dir, snapshots)
	lower := t.TempDir()
	busybox(t, lower)

	// As the erofs snapshotter returns them (plugins/snapshots/erofs/erofs.go).
	e := s.runOn("managed", []*types.Mount{
		{Type: "mkfs/ext4", Source: filepath.Join(snapshots, "rwlayer.img"), Options: []string{"X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=8388608", "rw", "loop"}},
		{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
			"X-containerd.mkdir.path={{ mount 0 }}/upper:0755", "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
			"workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper", "lowerdir=" + lower,
		}},
	}, frozen(t, freeze, thaw))
	seeded.Named(t, seeded.Cause{ID: "mounts", How: fmt.Sprintf("a disk below containerd's mount manager that is frozen for %s", frozenFor), Parts: seeded.Runc, Also: also()}, e)

	// As the blockfile snapshotter returns them (plugins/snapshots/blockfile/blockfile.go).
	block := filepath.Join(dir, "block.img")
	if out, err := exec.Command("mkfs.ext4", "-q", "-d", lower, block, "16M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	e = s.runOn("by-shim", []*types.Mount{{Type: "ext4", Source: block, Options: []string{"rw", "loop"}}}, frozen(t, freeze, thaw))
	seeded.Named(t, seeded.Cause{ID: "mounts", How: fmt.Sprintf("a disk below what the shim mounts that is frozen for %s", frozenFor), Parts: seeded.Runc, Also: also()}, e)
	in("umount", snapshots)
}

// TestSeededSlowDisk: the disk of the root file system is frozen while runc prepares it.
func TestSeededSlowDisk(t *testing.T) {
	seeded.Quiet(t)
	dir, freeze, thaw := disktest.Ext4(t)
	s := start(t, traced.Options{})
	e := s.run("frozen", bundle{root: dir}, func() func() { return frozen(t, freeze, thaw) })
	seeded.Named(t, seeded.Cause{ID: "slow-disk", How: fmt.Sprintf("a root file system that is frozen for %s", frozenFor), Parts: seeded.Runc, Also: also()}, e)
}
