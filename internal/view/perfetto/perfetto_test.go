package perfetto

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	"github.com/shimtrace/shimtrace/internal/waterfall/treetest"
)

func treeOf(t *testing.T, data []byte) *waterfall.Tree {
	t.Helper()
	_, tree := treetest.Only(t, data)
	return tree
}

// decode decodes a trace by Perfetto's own descriptors, which testdata/trim.py took from
// its Python package.
func decode(t *testing.T, trace []byte) protoreflect.Message {
	t.Helper()
	raw, err := os.ReadFile("testdata/perfetto_trace.binpb")
	if err != nil {
		t.Fatal(err)
	}
	var file descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	fd, err := protodesc.NewFile(&file, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(fd.Messages().ByName("Trace"))
	if err := proto.Unmarshal(trace, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// get returns a field that Perfetto knows by that name.
func get(m protoreflect.Message, name string) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

func has(m protoreflect.Message, name string) bool {
	return m.Has(m.Descriptor().Fields().ByName(protoreflect.Name(name)))
}

// noStrangers fails the test if a message has fields that Perfetto does not know.
func noStrangers(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if len(m.GetUnknown()) > 0 {
		t.Fatalf("%s has an unknown field: %x", m.Descriptor().Name(), m.GetUnknown())
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				noStrangers(t, v.List().Get(i).Message())
			}
		default:
			noStrangers(t, v.Message())
		}
		return true
	})
}

// slice is a slice as Perfetto sees it: on a track, within others.
type slice struct {
	name, category string
	track          uint64
	from, to       uint64
	depth          int
	annotations    map[string]string
}

// read reads a trace as Perfetto does, and fails the test where Perfetto would complain:
// of tracks that are not there, ends without a beginning, slices that cross.
func read(t *testing.T, trace []byte) (tracks map[uint64]string, all []*slice) {
	t.Helper()
	m := decode(t, trace)
	noStrangers(t, m)
	tracks = make(map[uint64]string)
	open := make(map[uint64][]*slice)
	packets := get(m, "packet").List()
	for i := range packets.Len() {
		p := packets.Get(i).Message()
		if get(p, "trusted_packet_sequence_id").Uint() == 0 {
			t.Fatalf("packet %d has no sequence", i)
		}
		if has(p, "track_descriptor") {
			d := get(p, "track_descriptor").Message()
			name := get(d, "name").String()
			if has(d, "process") {
				name = get(get(d, "process").Message(), "process_name").String()
			}
			if up := get(d, "parent_uuid").Uint(); up != 0 && tracks[up] == "" {
				t.Errorf("track %q is in a group that is not there", name)
			}
			tracks[get(d, "uuid").Uint()] = name
		}
		if !has(p, "track_event") {
			continue
		}
		e, at := get(p, "track_event").Message(), get(p, "timestamp").Uint()
		track := get(e, "track_uuid").Uint()
		if tracks[track] == "" {
			t.Fatalf("an event is on a track that is not there")
		}
		stack := open[track]
		switch get(e, "type").Enum() {
		case 1:
			s := &slice{name: get(e, "name").String(), track: track, from: at, depth: len(stack), annotations: make(map[string]string)}
			s.category = get(e, "categories").List().Get(0).String()
			for i, list := 0, get(e, "debug_annotations").List(); i < list.Len(); i++ {
				a := list.Get(i).Message()
				s.annotations[get(a, "name").String()] = get(a, "string_value").String()
			}
			open[track] = append(stack, s)
			all = append(all, s)
		case 2:
			if len(stack) == 0 {
				t.Fatalf("an end on track %q without a beginning", tracks[track])
			}
			s := stack[len(stack)-1]
			s.to = at
			if s.to < s.from {
				t.Errorf("%q ends before it begins", s.name)
			}
			open[track] = stack[:len(stack)-1]
		default:
			t.Fatalf("an event of type %d", get(e, "type").Enum())
		}
	}
	for track, stack := range open {
		if len(stack) > 0 {
			t.Errorf("%d slices on track %q do not end", len(stack), tracks[track])
		}
	}
	return tracks, all
}

// TestPods: every span of a real pod is a slice, of its own length, below what is above
// it in the tree or on a track of its own.
func TestPods(t *testing.T) {
	for _, name := range storytest.Pods {
		tree := treeOf(t, storytest.Captured(name))
		var out bytes.Buffer
		if err := Write(&out, Trace{Tree: tree}); err != nil {
			t.Fatal(err)
		}
		tracks, all := read(t, out.Bytes())
		byID := make(map[string]*slice)
		for _, s := range all {
			byID[s.annotations["span id"]] = s
		}
		for n := range tree.All() {
			if n.Span == nil || n.Start() == 0 {
				continue
			}
			s := byID[n.ID.String()]
			if s == nil || s.from != n.Start() || s.to != n.End() || s.name != n.Title() {
				t.Fatalf("%s: %s is %+v", name, n.Title(), s)
			}
		}
		t.Logf("%s: %d slices on %d tracks, %d kB", name, len(all), len(tracks), out.Len()/1000)
	}
}

// TestCrossing: spans that cross are on different tracks, whatever guests say.
func TestCrossing(t *testing.T) {
	s := &storytest.Script{}
	res := storytest.Resource(names.AgentScope)
	s.Span(res, "s", "root", "", "root", 0, time.Second)
	for i := range 200 {
		parent := "root"
		if i > 3 {
			parent = fmt.Sprint(i / 3)
		}
		s.Span(res, "s", fmt.Sprint(i), parent, "\x1b[31mwork", time.Duration(i*7919%1000)*time.Millisecond, time.Duration(i*104729%400)*time.Millisecond)
	}
	tree := treeOf(t, storytest.Message(s.Spans))
	var out bytes.Buffer
	path := []Piece{{waterfall.Interval{From: 1, To: 2}, "a"}, {waterfall.Interval{From: 2, To: 3}, "b"}}
	if err := Write(&out, Trace{Tree: tree, Critical: path}); err != nil {
		t.Fatal(err)
	}
	_, all := read(t, out.Bytes())
	if len(all) != 201+2 {
		t.Errorf("%d slices", len(all))
	}
	for _, a := range all {
		if bytes.ContainsRune([]byte(a.name), '\x1b') {
			t.Errorf("the name %q", a.name)
		}
		for _, b := range all {
			if a.track == b.track && a.from < b.from && b.from < a.to && a.to < b.to {
				t.Fatalf("%+v and %+v cross", a, b)
			}
		}
	}
}
