package client

import (
	"io"
	"net/http"
	"strings"
	"testing"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestGzipRefused: collectors refuse gzip, in the words of real programs.
func TestGzipRefused(t *testing.T) {
	otlpBody, err := proto.Marshal(&spb.Status{Code: int32(codes.InvalidArgument), Message: "cannot parse"})
	if err != nil {
		t.Fatal(err)
	}
	for name, refuse := range map[string]func(http.ResponseWriter){
		"415 text": func(w http.ResponseWriter) {
			http.Error(w, "Unsupported Content-Encoding", http.StatusUnsupportedMediaType)
		},
		"400 text": func(w http.ResponseWriter) { http.Error(w, "invalid protobuf", http.StatusBadRequest) },
		"400 OTLP": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write(otlpBody)
		},
	} {
		t.Run("http "+name, func(t *testing.T) {
			l := listen(t, "127.0.0.1:0")
			c := &collector{}
			requests := 0
			stop := serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
				requests++
				if r.Header.Get("Content-Encoding") == "gzip" {
					_, _ = io.Copy(io.Discard, r.Body)
					refuse(w)
					return
				}
				c.ServeHTTP(w, r)
			})
			client := newClient(t, exportTo(l, "http/protobuf", ""))
			checkUncompressed(t, func() string { return textOf(client.UploadTraces(t.Context(), spans("a"))) })
			stop()
			if c.taken() != 3 || requests != 4 {
				t.Errorf("%d spans taken of 3, in %d requests, want 4", c.taken(), requests)
			}
		})
	}
	// Go's, Java's, .NET's and Rust's words.
	for _, answer := range []error{
		status.Error(codes.Unimplemented, `grpc: Decompressor is not installed for grpc-encoding "gzip"`),
		status.Error(codes.Unimplemented, "Can't find decompressor for gzip"),
		status.Error(codes.Unimplemented, "Unsupported grpc-encoding value 'gzip'. Supported encodings: identity"),
		status.Error(codes.Unimplemented, "Content is compressed with `gzip` which isn't supported"),
		status.Error(codes.Internal, "Can't find decompressor for gzip"),
	} {
		t.Run("grpc "+answer.Error(), func(t *testing.T) {
			l := listen(t, "127.0.0.1:0")
			c := &collector{}
			c.refuseGzip = answer
			c.serveGRPC(t, l)
			client := newClient(t, exportTo(l, "grpc", ""))
			checkUncompressed(t, func() string { return textOf(client.UploadTraces(t.Context(), spans("a"))) })
			if c.taken() != 3 || c.tried() != 4 {
				t.Errorf("%d spans taken of 3, in %d requests, want 4", c.taken(), c.tried())
			}
		})
	}
	reliability.Row(t, reliability.Fault{Area: area,
		Fault: "the collector takes no gzip: status 415 or 400, or gRPC's Unimplemented",
		Pod:   "nothing", Lost: "nothing: uploads go on without"})
}

// checkUncompressed uploads three times: only the first one warns.
func checkUncompressed(t *testing.T, upload func() string) {
	t.Helper()
	if got := upload(); !strings.Contains(got, "takes no uploads in gzip") {
		t.Errorf("first upload: %q", got)
	}
	for range 2 {
		if got := upload(); got != "" {
			t.Errorf("then: %q", got)
		}
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestGzipIsNotToBlame: what is refused both with and without gzip stays refused, and
// once gzip was taken, uploads are not repeated without.
func TestGzipIsNotToBlame(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveHTTP(t, l)
	client := newClient(t, exportTo(l, "http/protobuf", ""))
	refuse := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(http.StatusBadRequest)
	}
	c.fail = refuse
	if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != isRefused || c.tried() != 2 {
		t.Errorf("%s after %d requests", got, c.tried())
	}
	c.fail = nil
	if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != "taken" || !c.gzip {
		t.Errorf("%s, gzip %v", got, c.gzip)
	}
	c.fail = refuse
	if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != isRefused || c.tried() != 4 || !c.gzip {
		t.Errorf("%s after %d requests, gzip %v", got, c.tried(), c.gzip)
	}
}
