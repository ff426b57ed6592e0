package wire_test

import (
	"math"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

func TestMessageFields(t *testing.T) {
	kill := marshal(t, &task.KillRequest{ID: "box", ExecID: "sh", Signal: math.MaxUint32})
	if id, exec := wire.Bytes(kill, 1), wire.Bytes(kill, 2); string(id) != "box" || string(exec) != "sh" {
		t.Errorf("id %q, exec id %q", id, exec)
	}
	if sig, ok := wire.Uint(kill, 3); !ok || sig != math.MaxUint32 {
		t.Errorf("signal %d, %t", sig, ok)
	}
	if v, ok := wire.Uint(kill, 9); ok || v != 0 {
		t.Errorf("field 9, which is not there: %d, %t", v, ok)
	}
	if v, ok := wire.Uint(kill, 1); ok || v != 0 {
		t.Errorf("field 1, which is a string, as an integer: %d, %t", v, ok)
	}
	if b := wire.Bytes(kill, 3); b != nil {
		t.Errorf("field 3, which is an integer, as bytes: %q", b)
	}
	twice := append(kill, marshal(t, &task.KillRequest{ID: "last"})...)
	if id := wire.Bytes(twice, 1); string(id) != "last" {
		t.Errorf("id that repeats: %q, want the last", id)
	}
}

func TestMessageTime(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	for name, tt := range map[string]struct {
		in   *timestamppb.Timestamp
		want time.Time
	}{
		"time":                 {timestamppb.New(at), at},
		"start of 1970":        {&timestamppb.Timestamp{}, time.Unix(0, 0)},
		"none":                 {nil, time.Time{}},
		"Go's zero time":       {timestamppb.New(time.Time{}), time.Time{}},
		"before 1970":          {&timestamppb.Timestamp{Seconds: -1}, time.Time{}},
		"beyond a span's":      {&timestamppb.Timestamp{Seconds: 253402300799}, time.Time{}},
		"beyond any":           {&timestamppb.Timestamp{Seconds: math.MaxInt64}, time.Time{}},
		"negative nanoseconds": {&timestamppb.Timestamp{Seconds: 1, Nanos: -1}, time.Time{}},
		"too many nanoseconds": {&timestamppb.Timestamp{Seconds: 1, Nanos: math.MaxInt32}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := wire.Time(marshal(t, &task.WaitResponse{ExitStatus: 1, ExitedAt: tt.in}), 2)
			if !got.Equal(tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
			if !got.IsZero() && !time.Unix(0, got.UnixNano()).Equal(got) {
				t.Errorf("%v does not fit a span", got)
			}
		})
	}
}
