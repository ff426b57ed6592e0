package post

import (
	"io"
	"log"
	"net/http"
	"time"
)

const (
	// answerTimeout bounds the writing of an answer, which has next to no body.
	answerTimeout = 5 * time.Second
	// idleTimeout is longer than known clients keep an idle connection (90
	// s): a span posted while it is closed would be lost.
	idleTimeout = 3 * time.Minute
)

// NewServer returns a server of HTTP/1.1 and of HTTP/2 in clear text. A request must
// have arrived in the given time, its headers in a quarter of that.
func NewServer(h http.Handler, readTimeout time.Duration) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC, and runtime-rs's client, speak nothing else
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: readTimeout / 4,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          16,
			MaxReadFrameSize:              64 << 10, // a connection keeps memory for its longest frame
			MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream:     128 << 10,
		},
		ErrorLog: log.New(io.Discard, "", 0), // what costs spans is reported
	}
}

// Is reports whether a request posts to the path. It answers any other request itself;
// what says what shimtrace does at the path, and completes the answer's sentence.
func Is(w http.ResponseWriter, req *http.Request, path, what string) bool {
	switch {
	case req.URL.Path != path:
		http.Error(w, "This is shimtrace, which "+what+".", http.StatusNotFound)
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "Spans are posted here. shimtrace show shows them.", http.StatusMethodNotAllowed)
	default:
		return true
	}
	return false
}
