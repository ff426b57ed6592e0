package journal

import (
	"strings"
	"unicode/utf8"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// validText returns a copy of t in which every text is valid UTF-8, as protobuf
// demands, and reports whether one was not. Texts from outside need not be valid: names
// of hosts and containers, environments, annotations, errors of other programs. They
// almost always are, so validText is called only when encoding has failed.
func validText(t *tracepb.TracesData) (valid *tracepb.TracesData, changed bool) {
	valid = proto.Clone(t).(*tracepb.TracesData)
	return valid, mendMessage(valid.ProtoReflect())
}

func mendMessage(m protoreflect.Message) (changed bool) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap(): // OTLP has none
		case field.IsList() && field.Message() != nil:
			for i := range v.List().Len() {
				changed = mendMessage(v.List().Get(i).Message()) || changed
			}
		case field.IsList() && field.Kind() == protoreflect.StringKind:
			for i := range v.List().Len() {
				if s := v.List().Get(i).String(); !utf8.ValidString(s) {
					v.List().Set(i, protoreflect.ValueOfString(mendText(s)))
					changed = true
				}
			}
		case field.Message() != nil:
			changed = mendMessage(v.Message()) || changed
		case field.Kind() == protoreflect.StringKind && !utf8.ValidString(v.String()):
			m.Set(field, protoreflect.ValueOfString(mendText(v.String())))
			changed = true
		}
		return true
	})
	return changed
}

func mendText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
