package otlpshape

import "github.com/shimtrace/shimtrace/internal/otlpwire"

// The shapes of OTLP's messages. A test compares them with the messages' descriptors, which
// would take memory in each relay.
var (
	ResourceSpans = Shape{fields: []field{
		otlpwire.ResourceSpansResource: {of: &resource},
		otlpwire.ResourceSpansScopes:   {of: &ScopeSpans},
		otlpwire.ResourceSpansSchema:   text,
	}}
	ScopeSpans = Shape{fields: []field{
		otlpwire.ScopeSpansScope:  {of: &scope},
		otlpwire.ScopeSpansSpans:  {of: &Span},
		otlpwire.ScopeSpansSchema: text,
	}}
	Span = Shape{fields: []field{
		otlpwire.SpanTraceID:    traceID,
		otlpwire.SpanSpanID:     spanID,
		otlpwire.SpanTraceState: text,
		otlpwire.SpanParentID:   spanID,
		otlpwire.SpanName:       text,
		otlpwire.SpanAttributes: {of: &keyValue},
		otlpwire.SpanEvents:     {of: &event},
		otlpwire.SpanLinks:      {of: &link},
		otlpwire.SpanStatus:     {of: &status},
	}}

	resource = Shape{fields: []field{
		otlpwire.ResourceAttributes: {of: &keyValue},
		otlpwire.ResourceEntities:   {of: &entity},
	}}
	entity = Shape{fields: []field{
		otlpwire.EntitySchema:          text,
		otlpwire.EntityType:            text,
		otlpwire.EntityIDKeys:          text,
		otlpwire.EntityDescriptionKeys: text,
	}}
	scope = Shape{fields: []field{
		otlpwire.ScopeName:       text,
		otlpwire.ScopeVersion:    text,
		otlpwire.ScopeAttributes: {of: &keyValue},
	}}
	event = Shape{fields: []field{
		otlpwire.EventName:       text,
		otlpwire.EventAttributes: {of: &keyValue},
	}}
	link = Shape{fields: []field{
		otlpwire.LinkTraceID:    traceID,
		otlpwire.LinkSpanID:     spanID,
		otlpwire.LinkTraceState: text,
		otlpwire.LinkAttributes: {of: &keyValue},
	}}
	status = Shape{fields: []field{
		otlpwire.StatusMessage: text,
	}}

	text    = field{text: true}
	traceID = field{id: 16}
	spanID  = field{id: 8}
)

// Values contain values.
var keyValue, anyValue, arrayValue, mapValue Shape

func init() {
	keyValue.fields = []field{otlpwire.KeyValueKey: text, otlpwire.KeyValueValue: {of: &anyValue}}
	anyValue.fields = []field{otlpwire.AnyString: text, otlpwire.AnyArray: {of: &arrayValue}, otlpwire.AnyMap: {of: &mapValue}}
	arrayValue.fields = []field{otlpwire.ArrayValues: {of: &anyValue}}
	mapValue.fields = []field{otlpwire.ArrayValues: {of: &keyValue}}
}
