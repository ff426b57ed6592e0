package collect

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// TestDatadogIntake: what the preset datadog-intake sends is what Datadog documents of its
// own intake of OTLP (docs.datadoghq.com/opentelemetry/setup/otlp_ingest/traces): posts of
// protobuf to /v1/traces, with the key in a header, and 202 for an answer.
func TestDatadogIntake(t *testing.T) {
	k := newTaken(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for what, is := range map[string]string{
			"POST":                   r.Method,
			"/v1/traces":             r.URL.Path,
			"application/x-protobuf": r.Header.Get("Content-Type"),
			"the-key":                r.Header.Get("dd-api-key"),
			"true":                   r.Header.Get("compute_stats"),
		} {
			if is != what {
				t.Errorf("%q instead of %q", is, what)
			}
		}
		w.WriteHeader(http.StatusAccepted)
		k.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("the-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := startHost(t, fmt.Sprintf(`[export]
preset = "datadog-intake"
endpoint = %q
header_files = { dd-api-key = %q }
headers = { compute_stats = "true" }
`, server.URL, key))
	for range 10 {
		h.record()
	}
	h.complete("the intake", k)
}
