package middleware_test

import (
	"context"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/middleware"
)

// keeper is an observer that keeps the calls it sees, at some moment of their life.
type keeper struct {
	middleware.NopObserver
	began, answered func(*middleware.Call)
	lost            func(*middleware.Call)
}

func (k keeper) tell(f func(*middleware.Call), c *middleware.Call) {
	if f != nil {
		f(c)
	}
}
func (k keeper) Began(c *middleware.Call)    { k.tell(k.began, c) }
func (k keeper) Answered(c *middleware.Call) { k.tell(k.answered, c) }
func (k keeper) Lost(c *middleware.Call)     { k.tell(k.lost, c) }

// TestKeep: a quiet call that somebody wants is recorded, once, whenever that
// somebody comes.
func TestKeep(t *testing.T) {
	seen := make(chan *middleware.Call, 1)
	for name, tt := range map[string]struct {
		observer keeper
		late     bool
	}{
		"before it ends":  {observer: keeper{began: (*middleware.Call).Keep}},
		"as it ends":      {observer: keeper{answered: (*middleware.Call).Keep}},
		"twice":           {observer: keeper{began: (*middleware.Call).Keep, answered: (*middleware.Call).Keep}},
		"when it is over": {observer: keeper{answered: func(c *middleware.Call) { seen <- c }}, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			provider, rec := recorder()
			addr, stop := relay(t, server(t), provider, middleware.WithQuiet(time.Hour, "Kill"), middleware.WithObserver(tt.observer))
			c := client(t, addr)
			if err := c.Call(context.Background(), taskService, "Kill", &task.KillRequest{ID: "box", Signal: 9}, new(emptypb.Empty)); err != nil {
				t.Fatal(err)
			}
			c.Close()
			stop()
			if tt.late {
				call := <-seen
				ended(t, rec, 0)
				var at sync.WaitGroup
				for range 8 {
					at.Go(call.Keep)
				}
				at.Wait()
			}
			s := ended(t, rec, 1)[0]
			if a := attrs(s); a["container.id"] != "box" || a["shimtrace.signal"] != int64(9) || a["rpc.response.status_code"] != "OK" {
				t.Errorf("attributes %v", a)
			}
			if !s.EndTime().After(s.StartTime()) {
				t.Errorf("from %v to %v", s.StartTime(), s.EndTime())
			}
		})
	}
}

// A call that nobody answered says so, also when it is kept afterwards.
func TestKeepLost(t *testing.T) {
	var lost *middleware.Call
	provider, rec := recorder()
	w := connect(t, provider, middleware.WithQuiet(0, "State"), middleware.WithObserver(keeper{lost: func(c *middleware.Call) { lost = c }}))
	exchange(t, w.client, w.server, request(1, &ttrpc.Request{Service: taskService, Method: "State"}), func() int { return 1 << 30 })
	w.server.Close()
	w.wait(t)
	ended(t, rec, 0)
	lost.Keep()
	s := ended(t, rec, 1)[0]
	if attrs(s)["error.type"] != "connection_closed" || s.Status().Code != codes.Error || !s.EndTime().Equal(lost.End) {
		t.Errorf("%v, %v, at %v", attrs(s), s.Status(), s.EndTime())
	}
}
