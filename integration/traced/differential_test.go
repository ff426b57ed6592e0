package traced_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestRelayedAsDirect plays the same to two shims, to one through its relay: what a
// client sees must be the same.
func TestRelayedAsDirect(t *testing.T) {
	t.Parallel()
	for v, service := range map[rig.Version]string{rig.V24: "containerd.task.v3.Task", rig.V17: "containerd.task.v2.Task", rig.V16: "containerd.task.v2.Task"} {
		t.Run(string(v), func(t *testing.T) {
			in := traced.Start(t, traced.Options{Options: rig.Options{Version: v}, Config: unhurried})
			direct, relayed := startByHand(t, in, v, "ns-direct"), startByHand(t, in, v, "ns-relayed")

			t.Run("empty requests", func(t *testing.T) {
				calls := append(empties(),
					fullStep{"containerd.nosuch.v1.Service", "Method", new(anypb.Any)},
					fullStep{service, "NoSuchMethod", new(anypb.Any)},
					fullStep{"", "", new(anypb.Any)},
				)
				want := play(t, direct, direct.inner, calls)
				got := play(t, relayed, relayed.relay, calls)
				for i, c := range calls {
					if got[i] != want[i] {
						t.Errorf("%s/%s\ndirect:  %v\nrelayed: %v", c.service, c.method, want[i], got[i])
					}
				}
			})
			t.Run("streams", func(t *testing.T) { sameStreams(t, direct, relayed, v) })
			t.Run("frames", func(t *testing.T) { sameFrames(t, direct, relayed, v, service) })
			var seen []string
			t.Run("life", func(t *testing.T) { seen = sameLife(t, direct, relayed, service) })
			t.Run("many at once", func(t *testing.T) { manyAtOnce(t, direct, relayed, service) })
			for _, s := range []*handShim{direct, relayed} {
				// It may be gone before it answers.
				play(t, s, s.relay, []fullStep{{service, "Shutdown", &task.ShutdownRequest{ID: handID, Now: true}}})
				s.action(nil, "delete")
			}
			wantRecorded(t, settled(t, in), relayed.namespace, seen)
		})
	}
}

// sameLife plays a container's life, and returns what is to be seen of it in the
// relayed shim's spans.
func sameLife(t *testing.T, direct, relayed *handShim, service string) (seen []string) {
	run := func(s *handShim, socket string) []answer {
		var calls []fullStep
		for _, st := range containerLife(s.bundle) {
			calls = append(calls, fullStep{service, st.method, st.req})
		}
		return play(t, s, socket, calls)
	}
	want, got := run(direct, direct.inner), run(relayed, relayed.relay)
	quiet := []string{"State", "Stats", "Pids", "Connect", "Wait"}
	for i, st := range containerLife("BUNDLE") {
		if failed := want[i].code != "OK"; failed != st.fails {
			t.Errorf("step %d, %s(%v): the shim answers %v, which makes no test", i, st.method, st.req, want[i])
		}
		if got[i] != want[i] {
			t.Errorf("step %d, %s(%v)\ndirect:  %v\nrelayed: %v", i, st.method, st.req, want[i], got[i])
		}
		if st.fails || !slices.Contains(quiet, st.method) {
			seen = append(seen, strings.ToUpper(fmt.Sprintf("%s/%s %s %s", service, st.method, got[i].code, got[i].message)))
		}
	}
	return seen
}

// wantRecorded checks that the calls of a container's life were recorded with their
// codes and messages, and no others.
func wantRecorded(t *testing.T, spans []otlprecv.Span, namespace string, want []string) {
	t.Helper()
	if traced.Killing() {
		return
	}
	var got []string
	for _, s := range spans {
		code, _ := s.Attrs["rpc.response.status_code"].(string)
		ours := s.Attrs["container.id"] == handID || s.Attrs["container.id"] == missingID
		if code == "" || !ours || s.Resource["shimtrace.containerd.namespace"] != namespace || strings.HasSuffix(s.Name, "/Shutdown") {
			continue
		}
		code = strings.ReplaceAll(code, "_", "") // as Go spells it
		message := strings.ReplaceAll(answerOf(s), namespace, "NAMESPACE")
		got = append(got, strings.ToUpper(fmt.Sprintf("%s %s %s", s.Name, code, message)))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("not recorded: %q\nrecorded in their place: %q", without(want, got), without(got, want))
	}
}

// manyAtOnce makes 64 calls at once on one connection.
func manyAtOnce(t *testing.T, direct, relayed *handShim, service string) {
	run := func(s *handShim, socket string) []answer {
		c := ttrpc.NewClient(s.dial(socket))
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		answers := make([]answer, 64)
		done := make(chan struct{})
		for i := range answers {
			go func() {
				id := fmt.Sprintf("nosuch%d", i)
				answers[i] = call(ctx, c, s.namespace, fullStep{service, "Kill", &task.KillRequest{ID: id}})
				if i%2 == 0 {
					answers[i] = call(ctx, c, s.namespace, fullStep{service, "Connect", &task.ConnectRequest{ID: id}})
				}
				done <- struct{}{}
			}()
		}
		for range answers {
			<-done
		}
		return answers
	}
	want, got := run(direct, direct.inner), run(relayed, relayed.relay)
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("call %d of many\ndirect:  %v\nrelayed: %v", i, want[i], got[i])
		}
	}
}

// sameStreams opens streams, which runc's shim has none of.
func sameStreams(t *testing.T, direct, relayed *handShim, v rig.Version) {
	run := func(s *handShim, socket, service, method string, desc ttrpc.StreamDesc) string {
		c := ttrpc.NewClient(s.dial(socket))
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		stream, err := c.NewStream(ctx, &desc, service, method, new(anypb.Any))
		if err != nil {
			return "open: " + err.Error()
		}
		if desc.StreamingClient {
			err = stream.SendMsg(&anypb.Any{TypeUrl: "x"})
			err = errors.Join(err, stream.CloseSend())
		}
		recv := stream.RecvMsg(new(anypb.Any))
		return fmt.Sprintf("send: %v, receive: %v", err, grpcstatus.Convert(recv))
	}
	for _, tt := range []struct {
		service, method string
		desc            ttrpc.StreamDesc
	}{
		{"containerd.services.streaming.v1.Streaming", "Stream", ttrpc.StreamDesc{StreamingServer: true}},
		{"containerd.services.streaming.v1.Streaming", "Stream", ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}},
		{"containerd.task.v3.Task", "State", ttrpc.StreamDesc{StreamingServer: true}},
		{"containerd.task.v2.Task", "State", ttrpc.StreamDesc{StreamingServer: true}},
	} {
		if tt.desc.StreamingClient && v != rig.V24 {
			continue // see strayData
		}
		want := run(direct, direct.inner, tt.service, tt.method, tt.desc)
		got := run(relayed, relayed.relay, tt.service, tt.method, tt.desc)
		if got != want {
			t.Errorf("stream %+v\ndirect:  %s\nrelayed: %s", tt, want, got)
		}
	}
}
