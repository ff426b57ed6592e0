package middleware

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// UnaryServerInterceptor returns an interceptor for ttrpc servers
// (ttrpc.WithUnaryServerInterceptor): a server span for each call, under the context in its
// metadata, which the handler finds in its own context. A panic in tracing costs the span;
// a panic of the handler passes. The handler decodes the request, so Observer.Parent is
// asked before the ids are known.
func UnaryServerInterceptor(opts ...Option) ttrpc.UnaryServerInterceptor {
	s := newSpans(trace.SpanKindServer, opts)
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, handler ttrpc.Method) (any, error) {
		service, name, _ := strings.Cut(strings.TrimPrefix(info.FullMethod, "/"), "/")
		c := s.newCall(service, name)
		in := ctx
		if !s.guard(func() {
			if s.starts(c) {
				ctx = s.begin(s.extract(in), c)
			}
		}) {
			return handler(in, unmarshal)
		}
		answer, err := handler(ctx, func(msg any) error {
			err := unmarshal(msg)
			if err == nil {
				s.guard(func() { c.method.readRequest(c, c.method.encode(msg)) })
			}
			return err
		})
		s.guard(func() {
			if err == nil {
				c.method.readAnswer(c, c.method.encode(answer))
			}
			s.answer(c, err)
		})
		return answer, err
	}
}

// UnaryClientInterceptor returns an interceptor for ttrpc clients
// (ttrpc.WithUnaryClientInterceptor): a client span for each call, under the span
// in the caller's context, its own context in the request's metadata. A panic in
// tracing costs the span.
func UnaryClientInterceptor(opts ...Option) ttrpc.UnaryClientInterceptor {
	s := newSpans(trace.SpanKindClient, opts)
	return func(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, _ *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker) error {
		c := s.newCall(req.Service, req.Method)
		out := ctx
		if !s.guard(func() {
			c.method.readRequest(c, req.Payload)
			if s.starts(c) {
				out = s.begin(ctx, c)
				s.inject(out, req)
			}
		}) {
			return invoke(ctx, req, resp)
		}
		err := invoke(out, req, resp)
		s.guard(func() {
			ended := err
			switch {
			case errors.Is(err, ttrpc.ErrClosed):
				ended = status.Error(codes.Unavailable, err.Error())
			case err == nil && resp.GetStatus().GetCode() != 0:
				ended = status.ErrorProto(resp.GetStatus())
			case err == nil:
				c.method.readAnswer(c, resp.Payload)
			}
			s.answer(c, ended)
		})
		return err
	}
}

func (s *spans) newCall(service, name string) *Call {
	c := &Call{Start: time.Now()}
	s.guard(func() { c.method = s.methods.get([]byte(service), []byte(name)) })
	return c
}

// extract returns ctx with the context in the metadata of the request it is of.
func (s *spans) extract(ctx context.Context) context.Context {
	var req wire.Request
	md, _ := ttrpc.GetMetadata(ctx)
	for key, values := range md {
		for _, v := range values {
			req.Metadata = append(req.Metadata, wire.Metadata{Key: []byte(key), Value: []byte(v)})
		}
	}
	return s.propagator.Extract(ctx, &carrier{req: &req})
}

// inject writes the context into the request's metadata, in place of what it has.
func (s *spans) inject(ctx context.Context, req *ttrpc.Request) {
	carry := carrier{req: &wire.Request{}}
	s.propagator.Inject(ctx, &carry)
	md := make([]*ttrpc.KeyValue, 0, len(req.Metadata)+len(carry.set))
	for _, kv := range req.Metadata {
		if !carry.replaces([]byte(kv.Key), s.fields) {
			md = append(md, kv)
		}
	}
	for _, e := range carry.set {
		md = append(md, &ttrpc.KeyValue{Key: e.key, Value: string(e.value)})
	}
	req.Metadata = md
}

// answer ends the call with what its handler or invoker returned.
func (s *spans) answer(c *Call, err error) {
	c.ended(time.Now())
	if err != nil {
		st := statusOf(err)
		c.Code = Code(st.Code())
		c.setMessage([]byte(st.Message()))
	}
	s.end(c)
}

// encode returns the message as its bytes on the wire where its well-known fields
// are wanted: an interceptor of a server sees only the decoded message.
func (m *method) encode(msg any) []byte {
	pm, ok := msg.(proto.Message)
	if !ok || m.Fields == (Fields{}) {
		return nil
	}
	b, err := proto.Marshal(pm)
	if err != nil {
		return nil
	}
	return b
}
