package traced_test

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// secretsConfig has a secret in each place of the file that may hold one: headers, files with
// headers, the key of a certificate, of several targets, which all refuse what they get and
// repeat what they were sent.
func secretsConfig(t *testing.T, ca, cert, key string) (text string, heard []string) {
	t.Helper()
	dir := t.TempDir()
	header := func(place string) string {
		file := filepath.Join(dir, place)
		check(t, os.WriteFile(file, []byte("Bearer "+secret(place)+"\n"), 0o600))
		heard = append(heard, "Bearer "+secret(place), secret(place+"-header"))
		return fmt.Sprintf("headers = { x-tenant = %q }\nheader_files = { authorization = %q }\n", secret(place+"-header"), file)
	}
	text = fmt.Sprintf("[metrics]\nsend = 'on'\ninterval = '100ms'\n[export]\nendpoint = 'http://%s'\n%s", echoHTTP, header("own"))
	text += fmt.Sprintf("[export.target.grpc]\nendpoint = 'http://%s'\nprotocol = 'grpc'\n%s", echoGRPC, header("grpc"))
	text += fmt.Sprintf("[export.target.tls]\nendpoint = 'https://%s'\nca = %q\ncert = %q\nkey = %q\n%s", echoTLS, ca, cert, key, header("tls"))
	text += fmt.Sprintf("[export.target.zipkin]\nendpoint = 'http://%s'\nprotocol = 'zipkin'\n%s", echoHTTP, header("zipkin"))
	return text, heard
}

// badEdits are mistakes of the kinds that are made with secrets.
func badEdits() []string {
	s := secret("edit")
	return []string{
		"[export]\nheaders = { authorization = \"" + s + "\n", "[export]\nheaders = \"" + s + "\"\n", "[export]\nheaders = { a = [\"" + s + "\"] }\n",
		"[export]\nheaders = { a = \"" + s + "\\n\" }\n", "[export]\ntoken = \"" + s + "\"\n", "[export]\nheader_files = { a = 5 }\nauthorization = '" + s + "'\n",
		"[export]\nendpoint = \"http://user:" + s + "@host:1\"\n", "[export]\nendpoint = \"https://host/?key=" + s + "\"\n", "[export]\nendpoint = [\"" + s + "\"]\n",
		"[export.target.x]\nendpoint = \"http://" + s + "@host\"\nheaders = { a = " + s + " }\n", "[export.target]\nx = \"" + s + "\"\n",
	}
}

// TestSecrets: whatever has a secret, and whatever goes wrong, nothing that shimtrace writes has
// it: no log, message, answer, file, command line or environment, and nothing that is sent but
// the header itself.
func TestSecrets(t *testing.T) {
	authority := testkit.NewAuthority(t)
	settings := func() *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{authority.Issue(time.Hour)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool()}
	}
	userinfo := "http://user:" + secret("env-password") + "@127.0.0.1:4318/?key=" + secret("env-query")
	for name, env := range map[string][]string{
		"environment": {
			"OTEL_EXPORTER_OTLP_ENDPOINT=" + userinfo, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + userinfo, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=" + userinfo,
			"OTEL_EXPORTER_OTLP_HEADERS=x-env=" + secret("env-header") + "," + secret("env-nonsense") + ",a=%zz" + secret("env-nonsense"),
			"OTEL_EXPORTER_OTLP_METRICS_HEADERS=x-metrics=Bearer%20" + secret("env-metrics"),
			"OTEL_EXPORTER_ZIPKIN_ENDPOINT=" + userinfo, "TOKEN=" + secret("env-token"),
		},
		"declarative": {"TOKEN=" + secret("env-token")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cert, key := authority.IssueFiles(time.Hour)
			pem, err := os.ReadFile(key)
			check(t, err)
			config, heard := secretsConfig(t, authority.File(), cert, key)
			declared := ""
			if name == "declarative" {
				declared = filepath.Join(t.TempDir(), "otel.yaml")
				check(t, os.WriteFile(declared, []byte(declaredWith("")), 0o600))
				env = append(env, "OTEL_CONFIG_FILE="+declared)
				heard = append(heard[2:], "Bearer "+secret("env-token"), secret("declared"), secret("declared-metrics"))
			} else { // of [export]'s own headers the environment's are in the place
				heard = append(heard[:1], append(heard[2:], secret("env-header"), "Bearer "+secret("env-metrics"))...)
			}
			opts := traced.Options{Config: config}
			opts.Env = env
			s := &search{T: t, Install: traced.Start(t, opts), env: env, needles: []string{planted, strings.Split(string(pem), "\n")[1]}}
			backend := listenEcho(t, s.Rig.NetNS(), settings())
			said := s.collect()
			check(t, s.Rig.Ctr("run", "--detach", "--env", "PASSWORD="+secret("pod"), "--runtime", s.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
			until(t, "all secrets to be sent", func() bool {
				for _, h := range heard {
					if !backend.has(h) {
						return false
					}
				}
				return true
			})
			until(t, "all refusals to be said", func() bool {
				all := said.String()
				for _, what := range []string{"shimtrace: http://" + echoHTTP, "shimtrace: grpc: ", "shimtrace: tls: ", "shimtrace: zipkin: ", "shimtrace: metrics: "} {
					if !strings.Contains(all, what) {
						return false
					}
				}
				return true
			})
			until(t, "status to have the refusals", func() bool { return strings.Count(s.says("status"), "trying again") == 4 })
			goesBy(t, s.Install, "the files to be watched", func(c *control.Configuration) bool { return c.Unseen == "" })
			s.controls()
			s.processes()

			good, err := os.ReadFile(s.Config)
			check(t, err)
			base, _, _ := strings.Cut(string(good), "[metrics]")
			for _, edit := range badEdits() {
				check(t, os.WriteFile(s.Config, []byte(base+edit), 0o600))
				if out := s.says("status"); !strings.Contains(out, s.Config) && !strings.Contains(out, "environment") {
					t.Errorf("of %q nothing is said: %s", edit, out)
				}
			}
			if declared != "" {
				for _, edit := range []string{"${" + secret("reference") + "}", "[a, {b: " + secret("yaml")} {
					check(t, os.WriteFile(declared, []byte(declaredWith(edit)), 0o600))
					s.says("status")
				}
			}
			goesBy(t, s.Install, "the bad edit to be said", func(c *control.Configuration) bool { return c.Problem != nil })
			until(t, "collect to say it, too", func() bool { return strings.Contains(said.String(), "configuration "+s.Config) })
			s.controls()
			s.says("status", "--json")
			s.says("doctor", "--no-send")
			check(t, os.WriteFile(s.Config, good, 0o600))
			if declared != "" {
				check(t, os.WriteFile(declared, []byte(declaredWith("")), 0o600))
			}

			for _, args := range [][]string{
				{"status"}, {"status", "--json"}, {"doctor"}, {"doctor", "--json"}, {"list"}, {"list", "--json"}, {"show"}, {"show", "--all", "-v"}, {"show", "--json"}, {"show", "--html", "-"},
				{"explain"}, {"stats"}, {"on", "all"}, {"upgrade", "--dry-run"}, {"install", "--dry-run", "--root", t.TempDir(), "--config", s.Config}, {"collect", "--help"},
			} {
				s.says(args...)
			}
			s.processes()
			backend.takes.Store(true)
			until(t, "everything to be taken", func() bool { return strings.Count(s.says("status"), " 0 wait") == 4 })
			check(t, s.Rig.Ctr("tasks", "delete", "--force", "box").Check())
			until(t, "the shims to end", func() bool { return len(s.Rig.Shims()) == 0 })
			s.files(s.Journal)
			s.files(stateDir(s.Rig))
			s.text("containerd's log", containerdsOwn.ReplaceAllString(s.Rig.Log(), ""))
			backend.mu.Lock()
			s.text("what is sent", backend.bodies.String())
			backend.mu.Unlock()
			t.Logf("%d bytes searched", s.found)
		})
	}
}

// containerdsOwn are lines of the OpenTelemetry SDK in containerd itself, which reads the same
// variables and says what it likes.
var containerdsOwn = regexp.MustCompile(`(?m)^[0-9/]+ [0-9:]+ (internal_logging\.go:[0-9]+|traces export): .*\n`)

// declaredWith is a declarative file with secrets, and a mistake if that is not empty.
func declaredWith(mistake string) string {
	text := "file_format: '1.0'\ntracer_provider:\n  processors:\n    - batch:\n        exporter:\n          otlp_http:\n            endpoint: http://" + echoHTTP + "/v1/traces\n" +
		"            headers_list: x-declared=" + secret("declared") + "\n            headers:\n              - name: authorization\n                value: Bearer ${TOKEN}\n" +
		"meter_provider:\n  readers:\n    - periodic:\n        interval: 100\n        exporter:\n          otlp_grpc:\n            endpoint: http://" + echoGRPC + "\n" +
		"            headers:\n              - name: x-declared\n                value: " + secret("declared-metrics") + "\n"
	if mistake != "" {
		text += "log_level: " + mistake + "\n"
	}
	return text
}
