// Package captured has recorded pods whose runtime and agent both traced, for tests that place
// their spans: the bytes received, and the shim's calls that must have been made.
//
// The bytes are testdata of the packages beside this one that decode them.
package captured

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// The captured pods, each of two containers and some execs, under Kata's Go runtime and under
// runtime-rs.
const (
	Go   = "kata-4.1.0-pod"
	Rust = "kata-4.1.0-rs-pod"
)

// secret is in the environment of the pods' containers.
const secret = "hunter2"

// Pod is a captured pod.
type Pod struct {
	name string
	// Frames are the bytes of the agent's connection, Agent the spans in them.
	Frames []byte
	Agent  []*span.Span
	// Bodies are the runtime's posts, Runtime the spans in each.
	Bodies  [][]byte
	Runtime [][]*span.Span
	// Sandbox is the sandbox's id.
	Sandbox string
	// Calls are the shim's, as far as the runtime's spans show them: each a little longer than
	// its serving, with the ids of the spans below it.
	Calls []Call
	// Of maps a runtime's span that serves a call to its index in Calls.
	Of map[[8]byte]int
}

// Call is a call of the shim.
type Call struct {
	Method, ContainerID, ExecID string
	Start, End                  time.Time
}

// margin is how far a call extends beyond its serving, at either end.
const margin = 2 * time.Millisecond

// Load reads a pod.
func Load(tb testing.TB, name string) *Pod {
	tb.Helper()
	p := &Pod{name: name, Of: make(map[[8]byte]int)}
	p.Frames = Frames(tb, name+".agent")
	p.Agent = AgentSpans(tb, name+".agent")
	p.Bodies = Posts(tb, name)
	decoder := endpoint.NewDecoder(endpoint.Options{})
	for _, body := range p.Bodies {
		_, spans, err := decoder.Decode(bytes.Clone(body))
		check(tb, err)
		var post []*span.Span
		for i := range spans {
			post = append(post, &spans[i])
		}
		p.Runtime = append(p.Runtime, post)
	}
	p.findCalls()
	if len(p.Calls) == 0 || p.Sandbox == "" {
		tb.Fatalf("capture %s tells of no calls", name)
	}
	return p
}

// Size returns the number of spans, without the exporter's own.
func (p *Pod) Size() int {
	n := len(p.Agent)
	for _, post := range p.Runtime {
		n += len(post)
	}
	return n
}

// Frames returns the bytes of a real agent's connection.
func Frames(tb testing.TB, name string) []byte {
	tb.Helper()
	return testkit.Gunzip(tb, testdata(tb, "agent", name+".frames.gz"))
}

// AgentSpans returns the spans in Frames.
func AgentSpans(tb testing.TB, name string) (all []*span.Span) {
	tb.Helper()
	r, d := agent.NewReader(bytes.NewReader(Frames(tb, name)), agent.Options{}), agent.NewDecoder(agent.Options{})
	for {
		payload, err := r.Next()
		if err == io.EOF {
			return all
		}
		check(tb, err)
		s := new(span.Span)
		check(tb, d.Decode(payload, s))
		all = append(all, s)
	}
}

// Posts returns the bodies of a pod's runtime's posts, in their order.
func Posts(tb testing.TB, name string) [][]byte {
	tb.Helper()
	return testkit.Untar(tb, testdata(tb, "endpoint", name+".runtime-thrift.tar.gz"))
}

// testdata returns the path of a file of a package beside this one, from wherever in the tree
// the test runs.
func testdata(tb testing.TB, pkg, name string) string {
	tb.Helper()
	dir, err := os.Getwd()
	check(tb, err)
	for {
		path := filepath.Join(dir, "internal", "forwarder", pkg, "testdata", name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if dir == filepath.Dir(dir) {
			tb.Fatalf("no directory above has %s", path)
		}
		dir = filepath.Dir(dir)
	}
}

func contains(m proto.Message, text string) bool {
	data, err := proto.Marshal(m)
	return err != nil || bytes.Contains(data, []byte(text))
}

var check = testkit.Check
