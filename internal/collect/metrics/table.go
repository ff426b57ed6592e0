package metrics

import (
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/otelconv"

	"github.com/shimtrace/shimtrace/internal/names"
)

// kind is what an instrument is in OpenTelemetry's API.
type kind string

const (
	counter     kind = "counter"
	upDown      kind = "up-down counter"
	gauge       kind = "gauge"
	exponential kind = "exponential histogram"
)

// metric is a metric that is sent. docs/operation.md lists all of them; a test writes the list.
type metric struct {
	name, unit string
	kind       kind
	attributes []string
	meaning    string
}

// shimtrace's own attributes.
const (
	attrJournal = names.MetricJournal // the directory
	attrOrigin  = names.MetricOrigin  // who made spans
	attrShare   = names.MetricShare   // whose part of a journal
	attrState   = names.MetricRelayState
)

// OpenTelemetry's attributes.
const (
	attrComponent     = string(semconv.OTelComponentNameKey)
	attrComponentType = string(semconv.OTelComponentTypeKey)
	attrError         = names.ErrorType
)

var exporterAttributes = []string{attrComponent, attrComponentType, attrJournal}

var (
	spanStarted = metric{otelconv.SDKSpanStarted{}.Name(), "{span}", counter, []string{attrJournal},
		"spans of shimtrace's own that have been recorded; each is counted when it is in the journal"}
	spanProcessed = metric{otelconv.SDKProcessorSpanProcessed{}.Name(), "{span}", counter, append([]string{attrError}, exporterAttributes...),
		"spans on their way to the journal: written, or lost before (`error.type` is the [reason](journal.md))"}
	queueSize = metric{otelconv.SDKProcessorSpanQueueSize{}.Name(), "{span}", upDown, exporterAttributes,
		"spans in the journal that wait for a target, but for those that it fails on"}
	spanExported = metric{otelconv.SDKExporterSpanExported{}.Name(), "{span}", counter, append([]string{attrError}, exporterAttributes...),
		"spans that a target has taken, or that are lost on the way there (`error.type` is the reason)"}
	spanInflight = metric{otelconv.SDKExporterSpanInflight{}.Name(), "{span}", upDown, exporterAttributes,
		"spans that a target fails on while it takes others, and that are tried again"}

	startDuration = metric{names.MetricStartDuration, "s", exponential, []string{names.Runtime, attrError, attrJournal},
		"how long sandboxes took to start, with traces as exemplars; `error.type` is `start_failed` for those that failed"}
	spanRecorded = metric{names.MetricSpanRecorded, "{span}", counter, []string{attrOrigin, attrJournal},
		"spans in the journal by who made them: `shim`, `agent`, `runtime` or another `program`"}
	spanLost = metric{names.MetricSpanLost, "{span}", counter, []string{attrError, attrJournal},
		"spans that were lost, by [reason](journal.md); as there, not all reasons are losses"}
	spanReparented = metric{names.MetricSpanReparented, "{span}", counter, nil,
		"spans of agents and runtimes whose cause was inferred, of relays that have lived through an upload"}
	journalSize = metric{names.MetricJournalSize, "By", upDown, []string{attrJournal},
		"bytes of the journal"}
	journalLimit = metric{names.MetricJournalLimit, "By", upDown, []string{attrJournal},
		"`max_bytes` of the journal"}
	shareSize = metric{names.MetricShareSize, "By", upDown, []string{attrShare, attrJournal},
		"bytes of the journal by sandboxes that run, the 32 largest; `other` is the rest"}
	relayCount = metric{names.MetricRelayCount, "{relay}", upDown, []string{attrState},
		"relays: `guarded`, `unguarded`, or `silent` if they don't answer"}
)

// table has all metrics, in the order of the document.
var table = []metric{
	startDuration, spanStarted, spanProcessed, queueSize, spanExported, spanInflight,
	spanRecorded, spanLost, spanReparented, journalSize, journalLimit, shareSize, relayCount,
}
