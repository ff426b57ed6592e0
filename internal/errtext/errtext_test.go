package errtext

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestReduce: answers of containerd, runc and both of Kata's runtimes, and what must
// not be shown of them.
func TestReduce(t *testing.T) {
	id := strings.Repeat("c58a3c91", 8)
	for text, want := range map[string]string{
		"":                                "",
		"no such container":               "no such container",
		"container " + id + ": not found": "container " + id + ": not found",
		// containerd and runc
		`failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown`://
		`failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown`,
		`error mounting "/var/lib/x" to rootfs at "/etc/x": mount src=/var/lib/x, dst=/etc/x, dstFd=/proc/thread-self/fd/8, flags=MS_BIND|MS_REC: no such file or directory: unknown`://
		`error mounting "/var/lib/x" to rootfs at "/etc/x": mount src=/var/lib/x, dst=/etc/x, dstFd=…, flags=MS_BIND|MS_REC: no such file or directory: unknown`,
		`rpc error: code = NotFound desc = an error occurred when try to find container "abc"`://
		`rpc error: code = NotFound desc = an error occurred when try to find container "abc"`,
		`the container's process didn't start (errno=13)`:                          `the container's process didn't start (errno=13)`,
		`exec: "sh -c curl -H 'Authorization: Bearer hunter2'": permission denied`: `exec: "…": permission denied`,
		// Environments, in any dress
		"env SECRET=hunter2 PATH=/usr/bin: exit status 1":    "env SECRET=… PATH=…: exit status 1",
		`env: ["SECRET=hunter2", "PATH=/bin"] is bad`:        `env: […] is bad`,
		`{"env":["SECRET=hunter2"],"args":["sh"]}: bad spec`: `{…}: bad spec`,
		`bad spec: "SECRET":"hunter2","a": "b"`:              `bad spec: "SECRET":"…","a": "…"`,
		`SECRET="hunter2 and more" failed`:                   `SECRET="…" failed`,
		`spec = Spec { env: ["A=b"], args: ["x"] } refused`:  `spec = Spec {…} refused`,
		`unfinished {"env":["SECRET=hunter2"`:                `unfinished {…}`,
		`unfinished "SECRET=hunter2 x`:                       `unfinished "…"`,
		"login --password hunter failed":                     "login --password … failed",
		"login password hunter2, failed":                     "login password …, failed",
		"Authorization: Bearer hunter was refused":           "Authorization: Bearer … was refused",
		"token=abc": "token=…",
		"pull from https://me:hunter2@registry.example/v2/x?sig=hunter2: 401": "pull from https://registry.example/v2/x: 401",
		"key AKIAabcDEF0123456789xyzXYZ is unknown":                           "key … is unknown",
		"address [::1]:4317 refused":                                          "address [::1]:4317 refused",
		// runtime-rs: anyhow's causes, ttrpc's status printed with its fields, a backtrace
		"failed to handle message create container\n\nCaused by:\n    0: create container\n    1: rpc status: Status { code: INTERNAL, message: \"failed to mount /dev/vda env SECRET=hunter2\", details: [] }\n\nStack backtrace:\n   0: anyhow::error\n      SECRET=hunter2"://
		"failed to handle message create container: create container: rpc status: Status {failed to mount /dev/vda env SECRET=…}",
		`ttrpc err: Others("rpc status: Status { code: NOT_FOUND, message: \"no exec nope\" }")`: `ttrpc err: Others("rpc status: Status {no exec nope}")`,
		"\n\n first\nSECRET=hunter2\n": "first",
		"bad \xff byte":                "bad ? byte",
	} {
		if got := Reduce(text); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}

// TestReduceLong: beginning and end are kept, and no character is split.
func TestReduceLong(t *testing.T) {
	text := "begin " + strings.Repeat("é ", 1000) + "no such file"
	got := Reduce(text)
	if len(got) > Max || len(got) < Max-8 || !strings.HasPrefix(got, "begin é") || !strings.HasSuffix(got, "é no such file") || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// FuzzReduce: whatever the text, the result is one short line of UTF-8, without a value
// from an environment.
func FuzzReduce(f *testing.F) {
	f.Add("", "")
	f.Add("exec: \"x\" {", "} [\"")
	f.Add("Caused by:\n 0: ", "\\\"message: \"")
	f.Fuzz(func(t *testing.T, before, after string) {
		got := Reduce(before + after)
		if len(got) > Max || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\t") {
			t.Fatalf("%q of %q", got, before+after)
		}
		if again := Reduce(got); len(again) > Max {
			t.Fatalf("%q of %q", again, got)
		}
		if got := Reduce(before + "\n SECRET=hunter-hunter " + after); strings.Contains(got, "hunter-hunter") && !strings.Contains(before+after, "hunter") {
			t.Fatalf("%q of %q", got, before)
		}
		if got := Reduce("x SECRET=hunter-hunter " + after); strings.Contains(got, "hunter-hunter") && !strings.Contains(after, "hunter") {
			t.Fatalf("%q", got)
		}
	})
}

func BenchmarkReduce(b *testing.B) {
	text := `failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH: unknown`
	b.ReportAllocs()
	for b.Loop() {
		Reduce(text)
	}
}

// Every event of a runtime's span has a text, so that one more allocation for each is felt.
func TestAppendAllocatesNothing(t *testing.T) {
	text := []byte(`rpc error: code = NotFound desc = "open /run/x: no such file", password="x" ` + strings.Repeat("and so on ", 100))
	room := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { Append(room, text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := string(Append([]byte("before: "), text)); got != "before: "+Reduce(text) {
		t.Errorf("appended, it is %q", got)
	}
}
