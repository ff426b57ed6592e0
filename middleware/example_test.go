package middleware_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/middleware"
)

// A shim of one's own gets a span for each call that containerd makes.
func ExampleUnaryServerInterceptor() {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	propagator, err := middleware.Propagator("tracecontext", "baggage")
	if err != nil {
		log.Fatal(err)
	}
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(middleware.UnaryServerInterceptor(
		middleware.WithTracerProvider(provider),
		middleware.WithPropagator(propagator),
	)))
	if err != nil {
		log.Fatal(err)
	}
	addr, end := serveGreeter(server)
	defer end()

	fmt.Println(greet(addr))
	for _, s := range spans.GetSpans() {
		fmt.Println(s.SpanKind, s.Name)
	}
	// Output:
	// hello, world
	// server example.Greeter/Greet
}

// A client gets a span for each call that it makes,
// and its server is told of it.
func ExampleUnaryClientInterceptor() {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	propagator, err := middleware.Propagator("tracecontext", "baggage")
	if err != nil {
		log.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	addr, end := serveGreeter(server)
	defer end()

	fmt.Println(greet(addr, ttrpc.WithUnaryClientInterceptor(middleware.UnaryClientInterceptor(
		middleware.WithTracerProvider(provider),
		middleware.WithPropagator(propagator),
	))))
	for _, s := range spans.GetSpans() {
		fmt.Println(s.SpanKind, s.Name)
	}
	// Output:
	// hello, world
	// client example.Greeter/Greet
}

// A relay traces calls between a client and a server that know nothing of it.
func ExampleRelay() {
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	addr, end := serveGreeter(server)
	defer end()

	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	l, remove := socket()
	defer remove()
	ended := make(chan error)
	go func() {
		relay := middleware.NewRelay(middleware.WithTracerProvider(provider))
		ended <- relay.Serve(context.Background(), l, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", addr)
		})
	}()

	fmt.Println(greet(l.Addr().String()))
	l.Close()
	fmt.Println(<-ended)
	for _, s := range spans.GetSpans() {
		fmt.Println(s.SpanKind, s.Name)
	}
	// Output:
	// hello, world
	// <nil>
	// server example.Greeter/Greet
}

// A program tells what it knows of its methods, and leaves containerd's as they are.
func ExampleWithMethods() {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	addr, end := serveGreeter(server)
	defer end()

	fmt.Println(greet(addr, ttrpc.WithUnaryClientInterceptor(middleware.UnaryClientInterceptor(
		middleware.WithTracerProvider(provider),
		middleware.WithMethods(func(service, name string) middleware.Method {
			if service == "example.Greeter" && name == "Greet" {
				return middleware.Method{Fields: middleware.Fields{ContainerID: 1}}
			}
			return middleware.ContainerdMethod(service, name)
		}),
	))))
	for _, s := range spans.GetSpans() {
		for _, kv := range s.Attributes {
			if kv.Key == "container.id" {
				fmt.Println(s.Name, kv.Value.AsString())
			}
		}
	}
	// Output:
	// hello, world
	// example.Greeter/Greet world
}

// boxes puts calls under the span of what they belong to, and says where that is.
type boxes struct {
	middleware.NopObserver
	span trace.SpanContext
}

func (b boxes) Parent(c *middleware.Call) (parent, link trace.SpanContext) { return b.span, c.Caller }

func (b boxes) Annotate(_ *middleware.Call, span trace.Span) {
	span.SetAttributes(attribute.String("rack", "r7"))
}

// An observer knows more than a call says: what it belongs under, and what it is about.
func ExampleWithObserver() {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	addr, end := serveGreeter(server)
	defer end()

	_, box := provider.Tracer("example").Start(context.Background(), "box")
	fmt.Println(greet(addr, ttrpc.WithUnaryClientInterceptor(middleware.UnaryClientInterceptor(
		middleware.WithTracerProvider(provider),
		middleware.WithObserver(boxes{span: box.SpanContext()}),
	))))
	box.End()
	for _, s := range spans.GetSpans() {
		fmt.Println(s.Name, s.Parent.SpanID() == box.SpanContext().SpanID(), len(s.Attributes))
	}
	// Output:
	// hello, world
	// example.Greeter/Greet true 4
	// box false 0
}

// socket listens on a unix socket in a directory of its own.
func socket() (l net.Listener, remove func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	l, err = net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		log.Fatal(err)
	}
	return l, func() { os.RemoveAll(dir) }
}

// serveGreeter has the server serve a service that greets.
func serveGreeter(server *ttrpc.Server) (addr string, end func()) {
	server.Register("example.Greeter", map[string]ttrpc.Method{
		"Greet": func(_ context.Context, unmarshal func(any) error) (any, error) {
			var who wrapperspb.StringValue
			if err := unmarshal(&who); err != nil {
				return nil, err
			}
			return wrapperspb.String("hello, " + who.Value), nil
		},
	})
	l, remove := socket()
	ended := make(chan error)
	go func() { ended <- server.Serve(context.Background(), l) }()
	return l.Addr().String(), func() {
		server.Close()
		<-ended
		remove()
	}
}

// greet calls the service once.
func greet(addr string, opts ...ttrpc.ClientOpts) string {
	conn, err := net.Dial("unix", addr)
	if err != nil {
		log.Fatal(err)
	}
	client := ttrpc.NewClient(conn, opts...)
	defer client.Close()
	var answer wrapperspb.StringValue
	if err := client.Call(context.Background(), "example.Greeter", "Greet", wrapperspb.String("world"), &answer); err != nil {
		log.Fatal(err)
	}
	return answer.Value
}
