package shim

import (
	"os"
	"testing"
)

func TestParseCommand(t *testing.T) {
	wd, _ := os.Getwd()
	const start = "/usr/bin/containerd-shim-runc-traced-v2"
	for _, tt := range []struct {
		name string
		argv []string
		want command
	}{
		{"start as containerd runs it",
			[]string{start, "-namespace", "k8s.io", "-address", "/run/c.sock", "-publish-binary", "/bin/containerd", "-id", "c1", "start"},
			command{action: "start", namespace: "k8s.io", id: "c1", bundle: wd}},
		{"debug, two dashes, joined values",
			[]string{start, "--namespace=ns", "-debug", "-id=c1", "start"},
			command{action: "start", namespace: "ns", id: "c1", bundle: wd}},
		{"delete", []string{start, "-namespace", "ns", "-id", "c1", "-bundle", "/b", "delete"},
			command{action: "delete", namespace: "ns", id: "c1", bundle: "/b"}},
		{"an id that is an action", []string{start, "-id", "delete", "start"},
			command{action: "start", id: "delete", bundle: wd}},
		{"info", []string{start, "-info"}, command{bundle: wd}},
		{"version", []string{start, "-v"}, command{bundle: wd}},
		{"no arguments", []string{start}, command{bundle: wd}},
		{"value missing", []string{start, "-id"}, command{bundle: wd}},
		{"unknown action", []string{start, "-id", "x", "checkpoint"}, command{id: "x", bundle: wd}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := parseCommand(tt.argv)
			if got.action != tt.want.action || got.namespace != tt.want.namespace || got.id != tt.want.id || got.bundle != tt.want.bundle {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if len(got.args) != len(tt.argv)-1 {
				t.Errorf("arguments for the inner shim changed: %q", got.args)
			}
		})
	}
}
