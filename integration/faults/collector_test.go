package faults_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestCollectors has a collector fail in each way while containers live, start and end.
// Nobody notices, and when it is well again it gets all.
func TestCollectors(t *testing.T) {
	ours := testkit.NewAuthority(t)
	authority, trusted, stranger := ours.File(), ours.Issue(time.Hour), testkit.NewAuthority(t).Issue(time.Hour)
	const plain, secure, nowhere = "http://" + collectorAddr, "https://" + collectorAddr, "http://192.0.2.9:4318"
	for i, tt := range []struct {
		fault    string
		endpoint string
		fail     func(s *site, f *front)
		heal     func(s *site, f *front)
	}{
		{"the collector's port refuses connections", plain, func(*site, *front) {}, healFront},
		{"the collector's address is a black hole: no packet is answered", nowhere, blackHole, func(s *site, f *front) {
			// The address comes to this host.
			s.inside("ip", "addr", "add", "192.0.2.9/32", "dev", "lo")
			f.at = "192.0.2.9:4318"
			f.up(f.forward)
		}},
		{"the collector reads a byte a second", plain, func(_ *site, f *front) { f.up(f.byteASecond) }, healFront},
		{"the collector answers 429, and asks for a second's pause", plain, func(s *site, f *front) {
			s.recv.Fail(otlprecv.Fault{Status: 429, Code: codes.ResourceExhausted, RetryAfter: time.Second})
			f.up(f.forward)
		}, func(s *site, _ *front) { s.recv.Fail(otlprecv.Fault{}) }},
		{"the collector answers 503", plain, func(s *site, f *front) {
			s.recv.Fail(otlprecv.Fault{Status: 503, Code: codes.Unavailable})
			f.up(f.forward)
		}, func(s *site, _ *front) { s.recv.Fail(otlprecv.Fault{}) }},
		{"the collector's certificate is a stranger's", secure, func(_ *site, f *front) { f.up(withTLS(stranger, f.forward)) },
			func(_ *site, f *front) { f.up(withTLS(trusted, f.forward)) }},
		{"the collector comes and goes, four times a second", plain, flap, healFront},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			selected(t, i)
			var opts traced.Options
			if tt.endpoint == secure {
				opts.Env = []string{"OTEL_EXPORTER_OTLP_CERTIFICATE=" + authority}
			}
			s := prepare(t, opts, tt.endpoint, "timeout = '2s'")
			recv, err := otlprecv.Listen(otlprecv.Options{})
			check(t, err)
			s.recv = recv
			s.endWith(recv)
			f := newFront(t, s.Rig.NetNS(), recv)
			tt.fail(s, f)
			l := faults.Start(t, s.Install, faults.Options{Pods: 2, Execs: 1, Echo: true})
			under(s, l, 6*time.Second)
			if f.calm != nil {
				f.calm()
			}
			tt.heal(s, f)
			row := s.finish(l)
			if row.CallsFailed > 0 || len(row.Lost) > 0 {
				t.Errorf("%d calls failed, spans lost %v", row.CallsFailed, row.Lost)
			}
			reliability.Row(t, reliability.Fault{Area: area, Fault: tt.fault, Load: row})
		})
	}
}

// blackHole has packets to 192.0.2.9 leave for a machine that is not there.
func blackHole(s *site, _ *front) {
	s.inside("ip", "link", "add", "hole", "type", "veth", "peer", "name", "bottom")
	s.inside("ip", "addr", "add", "192.0.2.1/24", "dev", "hole")
	s.inside("ip", "link", "set", "hole", "up")
	s.inside("ip", "link", "set", "bottom", "up")
	s.inside("ip", "neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "hole")
}

func healFront(_ *site, f *front) { f.up(f.forward) }

// flap has the collector there for a quarter of a second, and away for as long.
func flap(s *site, f *front) {
	ctx, stop := context.WithCancel(s.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for up := true; ctx.Err() == nil; up = !up {
			if up {
				f.up(f.forward)
			} else {
				f.down()
			}
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
			}
		}
	}()
	f.calm = func() {
		stop()
		<-done
	}
}

// under lets a load go on for some time, in which it must not come to a halt.
func under(s *site, l *faults.Load, d time.Duration) {
	s.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		work(s.T, l, 1)
		time.Sleep(50 * time.Millisecond)
	}
}

// inside runs a program in the rig's namespaces.
func (s *site) inside(program string, args ...string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := s.Rig.Command(ctx, program, args...).CombinedOutput(); err != nil {
		s.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}
