package perfetto

import (
	"bufio"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers and values of protos/perfetto/trace of Perfetto v49: trace.proto,
// trace_packet.proto, track_event/*.proto, clock_snapshot.proto.
const (
	tracePacket protowire.Number = 1

	packetClockSnapshot protowire.Number = 6
	packetTimestamp     protowire.Number = 8
	packetSequence      protowire.Number = 10
	packetTrackEvent    protowire.Number = 11
	packetSequenceFlags protowire.Number = 13
	packetDescriptor    protowire.Number = 60

	snapshotClock  protowire.Number = 1
	clockID        protowire.Number = 1
	clockTimestamp protowire.Number = 2
	clockRealtime                   = 1
	clockBoottime                   = 6

	trackUUID     protowire.Number = 1
	trackName     protowire.Number = 2
	trackProcess  protowire.Number = 3
	trackParent   protowire.Number = 5
	trackOrdering protowire.Number = 11
	trackRank     protowire.Number = 12
	orderExplicit                  = 3

	processPID  protowire.Number = 1
	processName protowire.Number = 6

	eventAnnotation protowire.Number = 4
	eventType       protowire.Number = 9
	eventTrack      protowire.Number = 11
	eventCategory   protowire.Number = 22
	eventName       protowire.Number = 23
	sliceBegin                       = 1
	sliceEnd                         = 2

	annotationText protowire.Number = 6
	annotationName protowire.Number = 10

	// sequence is the only writer of the trace; its first packet says that nothing came
	// before.
	sequence     = 1
	stateCleared = 1
)

// encoder writes packets.
type encoder struct {
	out    *bufio.Writer
	err    error
	tracks uint64
	begun  bool
}

// message is a protobuf message that is being made.
type message []byte

func (m message) number(field protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(m, field, protowire.VarintType), v)
}

func (m message) text(field protowire.Number, v string) message {
	return protowire.AppendString(protowire.AppendTag(m, field, protowire.BytesType), v)
}

func (m message) message(field protowire.Number, v message) message {
	return protowire.AppendBytes(protowire.AppendTag(m, field, protowire.BytesType), v)
}

func (e *encoder) packet(m message) {
	m = m.number(packetSequence, sequence)
	if !e.begun {
		m = m.number(packetSequenceFlags, stateCleared)
		e.begun = true
	}
	if _, err := e.out.Write(message(nil).message(tracePacket, m)); err != nil && e.err == nil {
		e.err = err
	}
}

// clock says that the times of events, which are of the trace's own clock, are those of
// the wall clock.
func (e *encoder) clock(at uint64) {
	clock := func(id uint64) message { return message(nil).number(clockID, id).number(clockTimestamp, at) }
	both := message(nil).message(snapshotClock, clock(clockBoottime)).message(snapshotClock, clock(clockRealtime))
	e.packet(message(nil).number(packetTimestamp, at).message(packetClockSnapshot, both))
}

// process begins a group of tracks and returns its id.
func (e *encoder) process(name string, number int) uint64 {
	e.tracks++
	process := message(nil).number(processPID, uint64(number)+1).text(processName, name)
	e.packet(message(nil).message(packetDescriptor, message(nil).number(trackUUID, e.tracks).
		message(trackProcess, process).number(trackOrdering, orderExplicit)))
	return e.tracks
}

// track begins a track, of a group if parent is not 0, and returns its id.
func (e *encoder) track(name string, parent uint64, rank int) uint64 {
	e.tracks++
	track := message(nil).number(trackUUID, e.tracks).text(trackName, name)
	if parent != 0 {
		track = track.number(trackParent, parent).number(trackRank, uint64(rank))
	}
	e.packet(message(nil).message(packetDescriptor, track))
	return e.tracks
}

func (e *encoder) begin(track, at uint64, name, category string, annotations [][2]string) {
	event := message(nil).number(eventType, sliceBegin).number(eventTrack, track).text(eventCategory, category).text(eventName, name)
	for _, a := range annotations {
		event = event.message(eventAnnotation, message(nil).text(annotationName, a[0]).text(annotationText, a[1]))
	}
	e.packet(message(nil).number(packetTimestamp, at).message(packetTrackEvent, event))
}

func (e *encoder) end(track, at uint64) {
	event := message(nil).number(eventType, sliceEnd).number(eventTrack, track)
	e.packet(message(nil).number(packetTimestamp, at).message(packetTrackEvent, event))
}
