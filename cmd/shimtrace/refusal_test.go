package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestRefusalIsSaidAlike: why a target is not reached, and which key to set, is said in the same
// words in the log, by status and by doctor, over both protocols.
func TestRefusalIsSaidAlike(t *testing.T) {
	ours, theirs := testkit.NewAuthority(t), testkit.NewAuthority(t)
	serve := func(settings *tls.Config) string {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.TLS, s.EnableHTTP2 = settings, true
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	of := func(a *testkit.Authority, valid time.Duration) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{a.Issue(valid)}}
	}
	asks := of(ours, time.Hour)
	asks.ClientAuth, asks.ClientCAs = tls.RequireAndVerifyClientCert, ours.Pool()
	oldCert, oldKey := ours.IssueFiles(-time.Hour)
	servers := map[string]struct{ url, keys, says string }{
		"unknown": {serve(of(theirs, time.Hour)), "", "has a certificate of an unknown authority: set ca of [export.target.%s] to that authority's"},
		"expired": {serve(of(ours, -time.Hour)), "", "has a certificate that has expired, or is not valid yet: it is to be renewed there, or the clock of this host to be set; ca of [export.target.%s] does not help"},
		"name":    {strings.Replace(serve(of(ours, time.Hour)), "127.0.0.1", "localhost", 1), "", "has a certificate for another name: set endpoint of [export.target.%s] to a name that the certificate has"},
		"none":    {serve(asks), "", "wants a certificate of shimtrace: set cert and key of [export.target.%s]"},
		"old":     {serve(asks.Clone()), fmt.Sprintf("cert = %q\nkey = %q\n", oldCert, oldKey), "does not accept the certificate of shimtrace, which has expired: renew cert and key of [export.target.%s]"},
	}
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			dir := t.TempDir()
			config := fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n", filepath.Join(dir, "state"), filepath.Join(dir, "journal"))
			var sentences []string
			for name, s := range servers {
				config += fmt.Sprintf("[export.target.%s]\nendpoint = %q\nprotocol = %q\nca = %q\n%s", name, s.url, protocol, ours.File(), s.keys)
				sentences = append(sentences, s.url+" "+fmt.Sprintf(s.says, name))
			}
			record(t, filepath.Join(dir, "journal"))
			p := newTool(t, config, "collect", "--idle", "0s")
			p.start()
			file := ""
			for _, kv := range p.cmd.Env {
				if path, ok := strings.CutPrefix(kv, "SHIMTRACE_CONFIG="); ok {
					file = path
				}
			}
			env := map[string]string{"SHIMTRACE_CONFIG": file}
			all := func(text string) bool {
				for _, s := range sentences {
					if !strings.Contains(text, s) {
						return false
					}
				}
				return true
			}
			eventually(t, "the log to say why", func() bool { return all(p.stderr.String()) })
			eventually(t, "status to say why", func() bool { return all(command(t, env, "status").stdout) })
			if r := command(t, env, "doctor", "--root", "/", "--json"); !all(r.stdout) {
				t.Errorf("doctor says\n%s\nwant\n%s", r.stdout, strings.Join(sentences, "\n"))
			}
			p.stop()
		})
	}
}
