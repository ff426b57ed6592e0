package otlprecv

import (
	"net/http"
	"slices"

	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
)

// serveMetrics takes metrics, over HTTP only.
func (r *Receiver) serveMetrics(w http.ResponseWriter, req *http.Request) {
	body := new(metrics.ExportMetricsServiceRequest)
	if status, err := decodeHTTP(w, req, body); err != nil {
		http.Error(w, err.Error(), status)
		return
	}
	r.mu.Lock()
	r.metrics = append(r.metrics, body)
	r.mu.Unlock()
	reply(w, http.StatusOK, new(metrics.ExportMetricsServiceResponse))
}

// Metrics returns the uploads of metrics, in the order of their arrival.
func (r *Receiver) Metrics() []*metrics.ExportMetricsServiceRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.metrics)
}
