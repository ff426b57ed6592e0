package middleware

import (
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// nowhere is a writer that takes all that is written.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// again says the same with each read.
type again []byte

func (a again) Read(b []byte) (int, error) { return copy(b, a), nil }

// BenchmarkFrames is what the relay itself takes for a request and its answer,
// without what the system and the two ends take.
func BenchmarkFrames(b *testing.B) {
	propagator, err := Propagator("tracecontext", "baggage")
	if err != nil {
		b.Fatal(err)
	}
	provider := export.NewTracerProvider(config.Default().Trace, new(exporttest.Nowhere))
	for name, opts := range map[string][]Option{
		"untraced": nil,
		"off":      {WithTracerProvider(provider), WithPropagator(propagator), WithSwitch(new(Switch))},
		"quiet":    {WithTracerProvider(provider), WithPropagator(propagator), WithQuiet(0, "Start")},
		"traced":   {WithTracerProvider(provider), WithPropagator(propagator)},
		"kept":     {WithTracerProvider(provider), WithPropagator(propagator)}, // for another process
	} {
		b.Run(name, func(b *testing.B) {
			c := &conn{spans: NewRelay(opts...).spans}
			if name == "kept" {
				memory, err := handover.New()
				if err != nil {
					b.Fatal(err)
				}
				defer memory.Close()
				c.calls.kept = memory.Calls()
			}
			rq := requests{conn: c}
			request, err := proto.Marshal(&ttrpc.Request{
				Service: "containerd.task.v3.Task", Method: "Start", Payload: []byte("\x0a\x03box"),
				Metadata: []*ttrpc.KeyValue{
					{Key: "containerd-namespace-ttrpc", Value: "k8s.io"},
					{Key: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			h := wire.Header{Length: uint32(len(request)), Stream: 1, Type: wire.TypeRequest}
			frame := append(h.Append(nil), request...)
			answer := wire.Header{Length: 4, Stream: 1, Type: wire.TypeResponse}.Append(nil)
			answer = append(answer, 0x12, 2, 8, 42) // a pid
			requests := handover.NewStream(again(frame), nowhere{})
			answers := handover.NewStream(again(answer), nowhere{})
			reader := resumeAnswers(handover.Mark{})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := requests.Peek(len(frame)); err != nil {
					b.Fatal(err)
				}
				if err := rq.forward(requests); err != nil {
					b.Fatal(err)
				}
				if err := c.forwardAnswer(answers, reader); err != nil {
					b.Fatal(err)
				}
			}
			if c.calls.take(1) != nil {
				b.Error("a call has no answer")
			}
		})
	}
}
