package kata

import (
	"bytes"
	"testing"
)

func TestDebugWords(t *testing.T) {
	for line, want := range map[string]string{
		"/usr/bin/qemu-system-x86_64|-append|tsc=reliable agent.log=debug agent.debug_console agent.debug_console_vport=1026 SECRET=x": "agent.log,debug_console",
		"qemu|-append|quiet systemd.log_level=debug earlyprintk=ttyS0 debug":                                                           "systemd.log_level,earlyprintk,debug",
		"qemu|-append|quiet agent.log=info debugfs=on":                                                                                 "",
		"qemu|-name|debug":                     "",
		"cloud-hypervisor|--api-socket|/run/x": "",
		"":                                     "",
	} {
		if got := DebugWords(bytes.Split([]byte(line), []byte("|"))); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
