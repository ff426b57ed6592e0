package kata

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

// frame is one of ttrpc's, as it goes out.
type frame struct {
	h       wire.Header
	payload []byte
}

func (f frame) bytes() []byte { return append(f.h.Append(nil), f.payload...) }

// Limits of ttrpc and of what is understood of it, written down once more: the model
// shares no code with what it judges but the header's.
const (
	mostPayload  = 4 << 20
	mostMetadata = 128
)

var traceKeys = map[string]bool{"traceparent": true, "tracestate": true}

// model says what may become of a request on its way: nothing, or else kept is what
// must be left of it, in front of the span's context, and state its own tracestate.
func model(f frame) (kept []byte, state string, changes bool) {
	if f.h.Type != wire.TypeRequest || len(f.payload) > mostPayload {
		return nil, "", false
	}
	metadata := 0
	for rest := f.payload; len(rest) > 0; {
		num, typ, n := protowire.ConsumeField(rest)
		if n < 0 || num > protowire.MaxValidNumber {
			return nil, "", false
		}
		field := rest[:n]
		rest = rest[n:]
		if num == 5 && typ == protowire.BytesType {
			key, value, ok := entry(field)
			if metadata++; !ok || metadata > mostMetadata {
				return nil, "", false
			}
			key = strings.ToLower(key)
			if traceKeys[key] {
				if key == "tracestate" && state == "" {
					state = value
				}
				continue
			}
		}
		kept = append(kept, field...)
	}
	return kept, state, true
}

// entry reads a field of metadata.
func entry(field []byte) (key, value string, ok bool) {
	_, _, n := protowire.ConsumeTag(field)
	inner, m := protowire.ConsumeBytes(field[n:])
	if m < 0 {
		return "", "", false
	}
	for len(inner) > 0 {
		num, typ, n := protowire.ConsumeField(inner)
		if n < 0 || num > protowire.MaxValidNumber {
			return "", "", false
		}
		if typ == protowire.BytesType {
			_, _, t := protowire.ConsumeTag(inner)
			b, _ := protowire.ConsumeBytes(inner[t:])
			switch num {
			case 1:
				key = string(b)
			case 2:
				value = string(b)
			}
		}
		inner = inner[n:]
	}
	return key, value, true
}

var parentForm = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]$`)

// judge says what is wrong with what has arrived of a frame, and returns the span that
// was put into it, if one was.
func judge(sent, got frame, trace string) (span string, err error) {
	kept, state, changes := model(sent)
	if got.h.Stream != sent.h.Stream || got.h.Type != sent.h.Type || got.h.Flags != sent.h.Flags {
		return "", fmt.Errorf("header %+v became %+v", sent.h, got.h)
	}
	if !changes {
		if !bytes.Equal(sent.payload, got.payload) {
			return "", fmt.Errorf("%+v: a payload that is not to change has", sent.h)
		}
		return "", nil
	}
	const context = 76 // of metadata, at least: key, value and their tags
	if bytes.Equal(sent.payload, got.payload) && len(kept)+context > mostPayload {
		return "", nil // there was no room for one, wherever the request's own stands in it
	}
	rest, ok := bytes.CutPrefix(got.payload, kept)
	if !ok || len(rest) == 0 {
		return "", fmt.Errorf("%+v: of a request of %d bytes, %d of them to be kept, %d arrived without all of these or a context: %x", sent.h, len(sent.payload), len(kept), len(got.payload), sent.payload)
	}
	seen := map[string]bool{}
	for len(rest) > 0 {
		num, typ, n := protowire.ConsumeField(rest)
		if n < 0 || num != 5 || typ != protowire.BytesType {
			return "", fmt.Errorf("%+v: behind what was sent is %q", sent.h, rest)
		}
		key, value, ok := entry(rest[:n])
		rest = rest[n:]
		if !ok || seen[key] || !traceKeys[key] {
			return "", fmt.Errorf("%+v: metadata %q=%q was put in", sent.h, key, value)
		}
		seen[key] = true
		if key == "tracestate" {
			if value != state {
				return "", fmt.Errorf("%+v: tracestate %q became %q", sent.h, state, value)
			}
			continue
		}
		m := parentForm.FindStringSubmatch(value)
		if m == nil || m[1] != trace {
			return "", fmt.Errorf("%+v: context %q is not of trace %s", sent.h, value, trace)
		}
		span = m[2]
	}
	if !seen["traceparent"] {
		return "", fmt.Errorf("%+v: there is a tracestate alone", sent.h)
	}
	return span, nil
}

// maker makes what runtimes and agents say, and what nobody should.
type maker struct {
	*rand.Rand
	stream uint32
}

var soakMethods = []string{
	"CreateContainer", "StartContainer", "ExecProcess", "ExecProcess", "SignalProcess", "WaitProcess", "ReadStdout", "ReadStderr",
	"WriteStdin", "StatsContainer", "GetOOMEvent", "TtyWinResize", "CloseStdin", "RemoveContainer", "DestroySandbox", "Unknown",
}

func (m *maker) chance(percent float64) bool { return m.Float64()*100 < percent }

func (m *maker) blob(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < len(b); i += 8 {
		v := m.Uint64()
		for j := i; j < min(i+8, len(b)); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return b
}

// size is small as a rule, and sometimes whatever goes.
func (m *maker) size() int {
	switch {
	case m.chance(80):
		return m.IntN(512)
	case m.chance(90):
		return m.IntN(16 << 10)
	case m.chance(98):
		return m.IntN(200 << 10)
	}
	return mostPayload - 300 + m.IntN(400) // about the limit
}

// next is what the client sends next.
func (m *maker) next() frame {
	m.stream += 2
	f := frame{h: wire.Header{Stream: m.stream, Type: wire.TypeRequest}}
	switch {
	case m.chance(85):
		f.payload = m.request()
	case m.chance(30): // a stream begins
		f.h.Flags = []uint8{wire.FlagRemoteClosed, wire.FlagRemoteOpen, wire.FlagRemoteOpen | wire.FlagNoData}[m.IntN(3)]
		f.payload = m.request()
	case m.chance(50): // it goes on, or another one does
		f.h.Type, f.h.Flags = wire.TypeData, uint8(m.IntN(8))
		f.h.Stream -= uint32(2 * m.IntN(4))
		f.payload = m.blob(m.size())
	case m.chance(60): // no envelope
		f.payload = m.blob(m.IntN(64))
	case m.chance(70): // of a later day
		f.h.Type, f.h.Flags, f.h.Stream = wire.FrameType(m.IntN(256)), uint8(m.IntN(256)), m.Uint32()
		f.payload = m.request()
	case m.chance(20): // too long
		f.payload = m.blob(mostPayload + 1 + m.IntN(1<<16))
	default: // a number again
		f.h.Stream -= 2
		f.payload = m.request()
	}
	f.h.Length = uint32(len(f.payload))
	return f
}

// request is an envelope: its fields in any order, some twice, some unknown.
func (m *maker) request() []byte {
	id := []byte(fmt.Sprintf("\x0a\x02c%d", m.IntN(10)))
	fields := [][]byte{
		text(1, "grpc.AgentService"), text(2, soakMethods[m.IntN(len(soakMethods))]),
		protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), append(id, m.blob(m.size())...)),
	}
	if m.chance(50) {
		fields = append(fields, protowire.AppendVarint(protowire.AppendTag(nil, 4, protowire.VarintType), m.Uint64()>>m.IntN(64)))
	}
	if m.chance(10) {
		fields = append(fields, text(2, "Again"), text(protowire.Number(6+m.IntN(1000)), "unknown"))
	}
	parent := fmt.Sprintf("00-%032x-%016x-%02x", m.Uint64()|1, m.Uint64()|1, []int{0, 1, 1, 1, 2, 3, 255}[m.IntN(7)])
	for m.chance(40) {
		key := []string{"traceparent", "Traceparent", "tracestate", "baggage", "containerd-namespace-ttrpc", "", "x"}[m.IntN(7)]
		value := []string{parent, "a=b", "k8s.io", "", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"}[m.IntN(5)]
		fields = append(fields, wire.AppendMetadata(nil, key, value))
	}
	if m.chance(0.5) {
		for range mostMetadata - 4 + m.IntN(8) {
			fields = append(fields, wire.AppendMetadata(nil, "many", "x"))
		}
	}
	m.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	return bytes.Join(fields, nil)
}

func text(num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
}

// answer is what the server says to a request; often nothing at once, sometimes twice,
// or what nobody has asked for.
func (m *maker) answer(stream uint32) (all []byte) {
	for range []int{0, 1, 1, 1, 1, 1, 2}[m.IntN(7)] {
		f := frame{h: wire.Header{Stream: stream, Type: wire.TypeResponse}}
		switch {
		case m.chance(80):
			f.payload = append(text(1, "\x08\x05\x12\x03bad")[:m.IntN(2)*9], text(2, string(m.blob(m.size())))...)
		case m.chance(70):
			f.h.Type, f.h.Flags = wire.TypeData, uint8(m.IntN(8))
			f.payload = m.blob(m.size())
		default:
			f.h.Type, f.h.Stream = wire.FrameType(m.IntN(256)), m.Uint32()
			f.payload = m.blob(m.IntN(100))
		}
		f.h.Length = uint32(len(f.payload))
		all = append(all, f.bytes()...)
	}
	return all
}

// pieces cuts bytes as a writer may: all at once, or a header in parts as Rust's ttrpc
// writes it, or anywhere.
func (m *maker) pieces(b []byte) (all [][]byte) {
	cuts := []int{}
	switch {
	case m.chance(50):
	case m.chance(60):
		cuts = []int{4, 8, 9, 10}
	default:
		for at := 0; at < len(b) && len(cuts) < 20; at += 1 + m.IntN(max(1, len(b)/4)) {
			cuts = append(cuts, at)
		}
	}
	from := 0
	for _, at := range cuts {
		if at > from && at < len(b) {
			all = append(all, b[from:at])
			from = at
		}
	}
	return append(all, b[from:])
}
