package forwarder_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"net"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

// BenchmarkSocketToJournal takes captures the product's whole way: from a Unix socket through
// decoder, queue and Collator to the journal on disk. Every span has its own ids. The figures
// are processor time, without that of the sender.
func BenchmarkSocketToJournal(b *testing.B) {
	for _, mode := range []struct {
		name     string
		isolated bool
	}{{"isolated", true}, {"collated", false}} {
		for _, name := range []string{"kata-3.28.0-agent", "kata-4.1.0-pod.agent"} {
			b.Run(mode.name+"/"+name, func(b *testing.B) {
				stream, spans := fresh(captured.Frames(b, name), 12_000)
				j, err := journal.Open(b.TempDir(), journal.Options{})
				if err != nil {
					b.Fatal(err)
				}
				l := listenUnix(b)
				b.SetBytes(int64(len(stream)))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := processTime(b)
				for b.Loop() {
					start += pass(b, l, j, mode.isolated, stream, spans)
				}
				used := processTime(b) - start
				runtime.ReadMemStats(&after)
				total := float64(b.N * spans)
				b.ReportMetric(total/used.Seconds(), "spans/cpu-s")
				b.ReportMetric(float64(b.N)*float64(len(stream))/1e6/used.Seconds(), "MB/cpu-s")
				b.ReportMetric(float64(used.Nanoseconds())/total, "cpu-ns/span")
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/total, "allocs/span")
				b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/total, "B/span")
				if err := j.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// pass brings a stream to the journal, and returns its sender's processor time.
func pass(b *testing.B, l *net.UnixListener, j *journal.Journal, apart bool, stream []byte, spans int) (sender time.Duration) {
	const plenty = 1 << 30
	r := forwarder.New(forwarder.Options{
		Journal: j, Warn: func(err error) { b.Error(err) },
		Limits: forwarder.Limits{
			SpansPerSecond: plenty, SpanBurst: plenty, BytesPerSecond: plenty, ByteBurst: plenty,
			CPUPercent: plenty, CPUBurst: time.Hour, ReadBytesPerSecond: plenty,
			QueuedSpans: 1 << 16, QueuedBytes: plenty,
		},
		Collation: func(listen.Origin) collate.Options {
			o := isolated(listen.Origin{Sandbox: "pod"})
			o.Isolated = apart
			o.Root = trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
			})
			return o
		},
	})
	sent := make(chan time.Duration)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		start := threadTime()
		conn, err := net.Dial("unix", l.Addr().String())
		if err == nil {
			_, err = conn.Write(stream)
			conn.Close()
		}
		if err != nil {
			b.Error(err)
		}
		sent <- threadTime() - start
	}()
	conn, err := l.AcceptUnix()
	if err != nil {
		b.Fatal(err)
	}
	r.Take(conn, listen.Origin{Sandbox: "pod"})
	sender = <-sent
	if err := r.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	if s := r.Snapshot(); s.Sent < uint64(spans) || len(s.Lost) > 0 {
		b.Fatalf("%d spans became %+v", spans, s)
	}
	return sender
}

func listenUnix(b *testing.B) *net.UnixListener {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.TempDir(), "s"), Net: "unix"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// fresh repeats the frames of a stream up to a number, each time with other ids.
func fresh(stream []byte, atLeast int) (all []byte, spans int) {
	for round := uint64(1); spans < atLeast; round++ {
		for rest := stream; len(rest) > 0; spans++ {
			n := 8 + binary.BigEndian.Uint64(rest)
			payload := bytes.Clone(rest[8:n])
			rest = rest[n:]
			if payload[0] == '{' {
				payload = jsonIDs.ReplaceAllFunc(payload, func(field []byte) []byte {
					at := bytes.IndexByte(field, ':') + 1
					id, err := strconv.ParseUint(string(field[at:]), 10, 64)
					if err != nil || id == 0 {
						return field // of more than 64 bits, or none
					}
					return strconv.AppendUint(field[:at:at], id%(math.MaxUint64>>8)+round<<56, 10)
				})
			} else {
				for _, at := range []int{bincodeTraceID, bincodeSpanID, bincodeParentID} {
					if id := binary.LittleEndian.Uint64(payload[at:]); id != 0 {
						binary.LittleEndian.PutUint64(payload[at:], id+round)
					}
				}
			}
			all = append(binary.BigEndian.AppendUint64(all, uint64(len(payload))), payload...)
		}
	}
	return all, spans
}

// The positions of ids: JSON's fields, and bincode's offsets without a trace state.
var jsonIDs = regexp.MustCompile(`"(trace_id|span_id|parent_span_id)":[0-9]+`)

const (
	bincodeTraceID  = 0
	bincodeSpanID   = 16
	bincodeParentID = 16 + 8 + 1 + 1 + 1
)
