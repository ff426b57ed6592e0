package middleware_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/codes"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/middleware"
)

// jobs is a service of a program of its own.
const jobs = "example.Jobs"

// jobMethod is what that program knows of its methods.
func jobMethod(service, name string) middleware.Method {
	if service != jobs {
		return middleware.ContainerdMethod(service, name)
	}
	ids := middleware.Fields{ContainerID: 3, ExecID: 4}
	switch name {
	case "Run":
		return middleware.Method{Fields: ids, FirstProcess: true}
	case "Await":
		return middleware.Method{Fields: middleware.Fields{ContainerID: 3, ExitStatus: 7}, Waits: true}
	case "Output":
		return middleware.Method{Fields: ids, Waits: true, Over: func(c *middleware.Call) bool { return c.Message == "no more" }}
	case "Stop":
		return middleware.Method{Last: true}
	}
	return middleware.Method{}
}

// job encodes texts as the fields from 3 on, as Run has its ids.
func job(texts ...string) (b []byte) {
	for i, text := range texts {
		b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(i+3), protowire.BytesType), text)
	}
	return b
}

// asked is what a relay makes of one call and its answer, which is nil if the server
// closes the connection instead.
func asked(t *testing.T, service, method string, payload []byte, resp *ttrpc.Response, opts ...middleware.Option) (told []string) {
	t.Helper()
	provider, rec := recorder()
	w := connect(t, append(opts, provider, middleware.WithMethods(jobMethod))...)
	exchange(t, w.client, w.server, request(1, &ttrpc.Request{Service: service, Method: method, Payload: payload}), func() int { return 1 << 30 })
	if resp != nil {
		exchange(t, w.server, w.client, answer(1, resp), func() int { return 1 << 30 })
	}
	w.server.Close()
	w.wait(t)
	for _, s := range rec.Ended() {
		if s.Status().Code == codes.Error {
			told = append(told, "error")
		}
		for _, kv := range s.Attributes() {
			if key := string(kv.Key); !strings.HasPrefix(key, "rpc.") && key != "error.type" {
				told = append(told, key+"="+kv.Value.String())
			}
		}
		if len(told) == 0 {
			told = []string{"a span"}
		}
	}
	slices.Sort(told)
	return told
}

// TestWithMethods: what a program knows of its methods is what their spans tell, and
// containerd's stay as they are.
func TestWithMethods(t *testing.T) {
	ok := new(ttrpc.Response)
	failed := func(message string) *ttrpc.Response {
		return &ttrpc.Response{Status: &status.Status{Code: 13, Message: message}}
	}
	exit := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 9)
	quiet := middleware.WithQuiet(time.Nanosecond, "Run", "Await", "Output")
	for name, tt := range map[string]struct {
		service, method string
		payload         []byte
		resp            *ttrpc.Response
		opts            []middleware.Option
		want            []string
	}{
		"ids":                     {jobs, "Run", job("c", "e"), ok, nil, []string{"container.id=c", "shimtrace.exec.id=e"}},
		"first process":           {jobs, "Run", job("c", "c"), ok, nil, []string{"container.id=c"}},
		"an exec of that name":    {jobs, "Output", job("c", "c"), ok, nil, []string{"container.id=c", "shimtrace.exec.id=c"}},
		"exit":                    {jobs, "Await", job("c"), &ttrpc.Response{Payload: exit}, nil, []string{"container.id=c", "process.exit.code=9"}},
		"exit status 0":           {jobs, "Await", job("c"), ok, nil, []string{"container.id=c", "process.exit.code=0"}},
		"the last":                {jobs, "Stop", nil, nil, nil, []string{"a span"}},
		"no answer":               {jobs, "Run", nil, nil, nil, []string{"error"}},
		"quiet and slow":          {jobs, "Run", nil, ok, []middleware.Option{quiet}, []string{"a span"}},
		"quiet, waits":            {jobs, "Await", nil, ok, []middleware.Option{quiet}, nil},
		"quiet, over":             {jobs, "Output", nil, failed("no more"), []middleware.Option{quiet}, nil},
		"quiet, fails":            {jobs, "Output", nil, failed("broken"), []middleware.Option{quiet}, []string{"error"}},
		"not known":               {jobs, "Other", job("c", "e"), ok, nil, []string{"a span"}},
		"containerd's are asked":  {taskService, "Pause", protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "c"), ok, nil, []string{"container.id=c"}},
		"another service's names": {"example.Other", "Run", job("c", "e"), ok, nil, []string{"a span"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := asked(t, tt.service, tt.method, tt.payload, tt.resp, tt.opts...); !slices.Equal(got, tt.want) {
				t.Errorf("told %q, want %q", got, tt.want)
			}
		})
	}
}

// TestMethodsPanic: what a program knows may panic; the call passes.
func TestMethodsPanic(t *testing.T) {
	var reported error
	opts := []middleware.Option{
		middleware.WithMethods(func(string, string) middleware.Method { panic("a bug") }),
		middleware.WithErrorHandler(func(err error) { reported = errors.Join(reported, err) }),
	}
	w := connect(t, opts...)
	in := request(1, &ttrpc.Request{Service: jobs, Method: "Run"})
	if out := exchange(t, w.client, w.server, in, func() int { return 1 << 30 }); string(out) != string(in) {
		t.Errorf("the server got %q, want %q", out, in)
	}
	w.server.Close()
	w.wait(t)
	if reported == nil || !strings.Contains(reported.Error(), "a bug") {
		t.Errorf("reported %v", reported)
	}
	invoked := false
	err := middleware.UnaryClientInterceptor(opts...)(t.Context(), &ttrpc.Request{Service: jobs, Method: "Run"}, new(ttrpc.Response), nil,
		func(context.Context, *ttrpc.Request, *ttrpc.Response) error { invoked = true; return nil })
	if err != nil || !invoked {
		t.Errorf("invoked: %v, %v", invoked, err)
	}
	served, err := middleware.UnaryServerInterceptor(opts...)(t.Context(), func(any) error { return nil }, &ttrpc.UnaryServerInfo{FullMethod: "/" + jobs + "/Run"},
		func(_ context.Context, unmarshal func(any) error) (any, error) { return "served", unmarshal(nil) })
	if err != nil || served != "served" {
		t.Errorf("served: %v, %v", served, err)
	}
}
