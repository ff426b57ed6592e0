package otlprecv

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

const protobufType = "application/x-protobuf"

func (r *Receiver) serveHTTP(w http.ResponseWriter, req *http.Request) {
	// Reading comes first even for a fault: a server notices that its client
	// is gone only when the body has been read.
	body, status, err := readHTTP(w, req)
	fault := r.attempt()
	switch {
	case fault.Hang:
		r.hang(req.Context())
		panic(http.ErrAbortHandler) // returning would answer 200
	case fault.Status != 0:
		if fault.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(fault.RetryAfter.Seconds())))
		}
		reply(w, fault.Status, &spb.Status{Message: fault.Message})
	case err != nil:
		reply(w, status, &spb.Status{Message: err.Error()})
	default:
		header := map[string][]string{}
		for k, v := range req.Header {
			header[strings.ToLower(k)] = v
		}
		r.accept(Request{Protocol: "http", Header: header, Body: body})
		reply(w, http.StatusOK, response(fault))
	}
}

// readHTTP decodes a request; with an error it returns the status to answer.
func readHTTP(w http.ResponseWriter, req *http.Request) (*collector.ExportTraceServiceRequest, int, error) {
	body := new(collector.ExportTraceServiceRequest)
	status, err := decodeHTTP(w, req, body)
	return body, status, err
}

func decodeHTTP(w http.ResponseWriter, req *http.Request, body proto.Message) (int, error) {
	if t := req.Header.Get("Content-Type"); t != protobufType {
		return http.StatusUnsupportedMediaType, fmt.Errorf("content type %q, want %s", t, protobufType)
	}
	var in io.Reader = http.MaxBytesReader(w, req.Body, maxRequest)
	switch e := req.Header.Get("Content-Encoding"); e {
	case "":
	case "gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return http.StatusBadRequest, fmt.Errorf("decompress: %w", err)
		}
		// What is unpacked has the same bound; one byte more shows an excess.
		in = io.LimitReader(z, maxRequest+1)
	default:
		return http.StatusUnsupportedMediaType, fmt.Errorf("content encoding %q, want gzip or none", e)
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return http.StatusBadRequest, fmt.Errorf("read: %w", err)
	}
	if len(data) > maxRequest {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("request is larger than %d bytes", maxRequest)
	}
	if err := proto.Unmarshal(data, body); err != nil {
		return http.StatusBadRequest, fmt.Errorf("decode: %w", err)
	}
	return 0, nil
}

func reply(w http.ResponseWriter, status int, m proto.Message) {
	data, err := proto.Marshal(m)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", protobufType)
	w.WriteHeader(status)
	w.Write(data) // a client that is gone has no use for the error
}

// response is OTLP's answer to an accepted request.
func response(f Fault) *collector.ExportTraceServiceResponse {
	res := new(collector.ExportTraceServiceResponse)
	if f.Rejected > 0 {
		res.PartialSuccess = &collector.ExportTracePartialSuccess{
			RejectedSpans: f.Rejected,
			ErrorMessage:  f.Message,
		}
	}
	return res
}
