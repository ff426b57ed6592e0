package traced_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	sandbox "github.com/containerd/containerd/api/runtime/sandbox/v1"
	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// missingID is the id of no container.
const missingID = "nosuch"

// A step is a call of the script that is played to a shim.
type step struct {
	method string
	req    proto.Message
	fails  bool
}

// process is a process for Exec, as containerd encodes one.
func process(json string) *anypb.Any {
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: []byte(json)}
}

func resources(json string) *anypb.Any {
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: []byte(json)}
}

// containerLife is the life of a container, with what a client can do wrong, but
// for an Exec that says nothing of the process: runc's shim does not survive that.
func containerLife(bundle string) []step {
	exit5 := process(`{"user":{},"args":["sh","-c","exit 5"],"env":["PATH=/bin"],"cwd":"/"}`)
	noProgram := process(`{"user":{},"args":["nosuch"],"env":["PATH=/bin"],"cwd":"/"}`)
	notOptions, err := anypb.New(new(sandbox.PingRequest))
	if err != nil {
		panic(err)
	}
	return []step{
		{"Connect", &task.ConnectRequest{ID: handID}, false},
		{"State", &task.StateRequest{ID: handID}, true},
		{"Start", &task.StartRequest{ID: handID}, true},
		{"Create", &task.CreateTaskRequest{ID: handID, Bundle: bundle + "/nosuch"}, true},
		{"Create", &task.CreateTaskRequest{ID: handID, Bundle: bundle}, false},
		{"State", &task.StateRequest{ID: handID}, false},
		{"State", &task.StateRequest{ID: missingID}, true},
		{"Connect", &task.ConnectRequest{ID: handID}, false},
		{"Pids", &task.PidsRequest{ID: handID}, false},
		{"Pids", &task.PidsRequest{ID: missingID}, true},
		{"Start", &task.StartRequest{ID: missingID}, true},
		{"Start", &task.StartRequest{ID: handID}, false},
		{"Start", &task.StartRequest{ID: handID}, true},
		{"State", &task.StateRequest{ID: handID}, false},
		{"Stats", &task.StatsRequest{ID: handID}, false},
		{"Stats", &task.StatsRequest{ID: missingID}, true},
		{"Exec", &task.ExecProcessRequest{ID: missingID, ExecID: "e1", Spec: exit5}, true},
		{"Exec", &task.ExecProcessRequest{ID: handID, ExecID: "e1", Spec: notOptions}, true},
		{"Exec", &task.ExecProcessRequest{ID: handID, ExecID: "e1", Spec: exit5}, false},
		{"Exec", &task.ExecProcessRequest{ID: handID, ExecID: "e1", Spec: exit5}, true},
		{"State", &task.StateRequest{ID: handID, ExecID: "e1"}, false},
		{"Start", &task.StartRequest{ID: handID, ExecID: "e1"}, false},
		{"Wait", &task.WaitRequest{ID: handID, ExecID: "e1"}, false},
		{"State", &task.StateRequest{ID: handID, ExecID: "e1"}, false},
		{"Kill", &task.KillRequest{ID: handID, ExecID: "e1", Signal: 9}, true},
		{"Delete", &task.DeleteRequest{ID: handID, ExecID: "e1"}, false},
		{"Delete", &task.DeleteRequest{ID: handID, ExecID: "e1"}, true},
		{"Exec", &task.ExecProcessRequest{ID: handID, ExecID: "e2", Spec: noProgram}, false},
		{"Start", &task.StartRequest{ID: handID, ExecID: "e2"}, true},
		{"Wait", &task.WaitRequest{ID: handID, ExecID: missingID}, true},
		{"CloseIO", &task.CloseIORequest{ID: handID, Stdin: true}, false},
		{"CloseIO", &task.CloseIORequest{ID: missingID, Stdin: true}, true},
		{"ResizePty", &task.ResizePtyRequest{ID: handID, Width: 80, Height: 25}, false},
		{"ResizePty", &task.ResizePtyRequest{ID: missingID, Width: 80, Height: 25}, true},
		{"Pause", &task.PauseRequest{ID: handID}, false},
		{"State", &task.StateRequest{ID: handID}, false},
		{"Pause", &task.PauseRequest{ID: handID}, true},
		{"Pause", &task.PauseRequest{ID: missingID}, true},
		{"Resume", &task.ResumeRequest{ID: handID}, false},
		{"Resume", &task.ResumeRequest{ID: handID}, true},
		{"Resume", &task.ResumeRequest{ID: missingID}, true},
		{"Update", &task.UpdateTaskRequest{ID: handID, Resources: resources(`{"cpu":{"shares":512}}`)}, false},
		{"Update", &task.UpdateTaskRequest{ID: handID, Resources: resources(`{"cpu":7}`)}, true},
		{"Update", &task.UpdateTaskRequest{ID: missingID, Resources: resources(`{}`)}, true},
		{"Checkpoint", &task.CheckpointTaskRequest{ID: handID, Path: bundle + "/nosuch/checkpoint"}, true},
		{"Checkpoint", &task.CheckpointTaskRequest{ID: missingID}, true},
		{"Delete", &task.DeleteRequest{ID: handID}, true},
		{"Kill", &task.KillRequest{ID: missingID, Signal: 9}, true},
		{"Kill", &task.KillRequest{ID: handID, ExecID: missingID, Signal: 9}, true},
		{"Kill", &task.KillRequest{ID: handID, Signal: 9, All: true}, false},
		{"Wait", &task.WaitRequest{ID: handID}, false},
		{"State", &task.StateRequest{ID: handID}, false},
		{"Kill", &task.KillRequest{ID: handID, Signal: 9}, true},
		{"Delete", &task.DeleteRequest{ID: handID}, false},
		{"Delete", &task.DeleteRequest{ID: handID}, true},
		{"Connect", &task.ConnectRequest{ID: handID}, false},
	}
}

// empties is every method of the services that shims are called by, without
// arguments, but for those that end a shim.
func empties() (calls []fullStep) {
	ends := map[protoreflect.Name]bool{"Shutdown": true, "ShutdownSandbox": true, "StopSandbox": true}
	for _, s := range []protoreflect.FileDescriptor{
		taskv2.File_runtime_task_v2_shim_proto, task.File_runtime_task_v3_shim_proto, sandbox.File_runtime_sandbox_v1_sandbox_proto,
	} {
		services := s.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				m := methods.Get(j)
				if !ends[m.Name()] {
					calls = append(calls, fullStep{string(services.Get(i).FullName()), string(m.Name()), newMessage(m.Input())})
				}
			}
		}
	}
	return calls
}

// A fullStep is a call of any service.
type fullStep struct {
	service, method string
	req             proto.Message
}

func newMessage(d protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic(err)
	}
	return t.New().Interface()
}

// answerTo makes an empty answer for a method, which may be unknown.
func answerTo(service, method string) proto.Message {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err == nil {
		if m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method)); m != nil {
			return newMessage(m.Output())
		}
	}
	return new(anypb.Any)
}

// An answer is what a client sees of a call, without what differs from one process
// to the next.
type answer struct {
	code, message string
	value         string
}

func (a answer) String() string { return fmt.Sprintf("%s %q %s", a.code, a.message, a.value) }

// call makes a call on a connection and returns its answer, in which the shim's
// namespace is not told.
func call(ctx context.Context, c *ttrpc.Client, namespace string, s fullStep) answer {
	resp := answerTo(s.service, s.method)
	err := c.Call(ctx, s.service, s.method, s.req, resp)
	st, _ := grpcstatus.FromError(err)
	a := answer{code: st.Code().String(), message: strings.ReplaceAll(st.Message(), namespace, "NAMESPACE")}
	if err == nil {
		level(resp.ProtoReflect())
		a.value = strings.ReplaceAll(prototext.Format(resp), namespace, "NAMESPACE")
	}
	return a
}

// level makes pids, times and measurements the same everywhere, where there are any.
func level(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case strings.HasSuffix(string(f.Name()), "pid"):
			m.Set(f, protoreflect.ValueOfUint32(1))
		case f.Name() == "stats":
			m.Set(f, protoreflect.ValueOfMessage((&anypb.Any{TypeUrl: v.Message().Interface().(*anypb.Any).TypeUrl}).ProtoReflect()))
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				level(v.List().Get(i).Message())
			}
		case f.Message() == nil:
		case f.Message().FullName() == (*timestamppb.Timestamp)(nil).ProtoReflect().Descriptor().FullName():
			m.Set(f, protoreflect.ValueOfMessage((&timestamppb.Timestamp{Seconds: 1}).ProtoReflect()))
		default:
			level(v.Message())
		}
		return true
	})
}

// play plays steps to a shim through a connection to one of its sockets.
func play(t *testing.T, s *handShim, socket string, steps []fullStep) (answers []answer) {
	t.Helper()
	c := ttrpc.NewClient(s.dial(socket))
	defer c.Close()
	for _, st := range steps {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		a := call(ctx, c, s.namespace, st)
		cancel()
		if a.message == ttrpc.ErrClosed.Error() && st.method != "Shutdown" {
			t.Fatalf("the shim ended at %s/%s", st.service, st.method)
		}
		answers = append(answers, a)
	}
	return answers
}
