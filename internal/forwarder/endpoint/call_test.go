package endpoint

import (
	"strings"
	"testing"
)

func TestRequests(t *testing.T) {
	const c, e, s = "1a0f", "60e2-x.y", "c58a"
	process := `ContainerProcess { container_id: ContainerID { container_id: "1a0f" }, exec_id: "60e2-x.y", process_type: Exec }`
	for _, tc := range []struct{ text, name, container, exec, sandbox string }{
		{`StartProcess(` + process + `)`, "StartProcess", c, e, ""},
		{`StartProcess(` + strings.Replace(process, e, "", 1) + `)`, "StartProcess", c, "", ""},
		{`KillProcess(KillRequest { process: ` + process + `, signal: 9, all: true })`, "KillProcess", c, e, ""},
		{`ResizeProcessPTY(ResizePTYRequest { process: ` + process + `, width: 1, height: 2 })`, "ResizeProcessPTY", c, e, ""},
		{`ExecProcess(ExecProcessRequest { process: ` + process + `, terminal: false, stdin: Some("x") })`, "ExecProcess", c, e, ""},
		{`CreateContainer(ContainerConfig { container_id: "1a0f", bundle: "/run", exec_id: "no" })`, "CreateContainer", c, "", ""},
		{`ShutdownContainer(ShutdownRequest { container_id: "1a0f", is_now: false })`, "ShutdownContainer", c, "", ""},
		{`UpdateContainer(UpdateRequest { container_id: "1a0f", value: [1, 2] })`, "UpdateContainer", c, "", ""},
		{`StatsContainer(ContainerID { container_id: "1a0f" })`, "StatsContainer", c, "", ""},
		{`Pid`, "Pid", "", "", ""},
		{`StartSandbox(SandboxID { sandbox_id: "c58a" })`, "StartSandbox", "", "", s},
		{`CreateSandbox(SandboxConfig { sandbox_id: "c58a", hostname: "h" })`, "CreateSandbox", "", "", s},
		{`ExecProcessRequest { process: ` + process + `, terminal: false }`, "", c, e, ""},

		{``, "", "", "", ""},
		{`CreateContainer(ContainerConfig { bundle: "container_id: \"x\"", container_id: "x" })`, "CreateContainer", "", "", ""},
		{`StartProcess(X { y: ContainerID { container_id: "x" } })`, "StartProcess", "", "", ""},
		{`Start Process(ContainerID { container_id: "x" })`, "", "", "", ""},
		{`StartProcess(ContainerID { container_id: "x`, "StartProcess", "", "", ""},
		{`A(B { process: C { process: D { process: E { container_id: "x" } } } })`, "A", "", "", ""},
		{strings.Repeat("A", 100), "", "", "", ""},
	} {
		got := parseRequest([]byte(tc.text))
		if string(got.name) != tc.name || string(got.container) != tc.container || string(got.exec) != tc.exec || string(got.sandbox) != tc.sandbox {
			t.Errorf("%s: %q %q %q %q", tc.text, got.name, got.container, got.exec, got.sandbox)
		}
	}
}

func TestMethodsByName(t *testing.T) {
	for _, tc := range []struct{ name, pkg, req, want string }{
		{"create", "containerdshim", "", "Create"},
		{"Start", "containerdshim", "", "Start"},
		{"Start", "virtcontainers", "", ""},
		{"rootSpan", "containerdshim", "", ""},
		{"Cleanup", "containerdshim", "", ""},
		{"handler_task_message", "", `StartProcess(`, "Start"},
		{"handler_task_request", "", `ResizeProcessPTY(ResizePTYRequest {`, "ResizePty"},
		{"handler_task_request", "", `Pid`, "Pids"},
		{"handler_task_request", "", `Unheard(Of {`, ""},
		{"handler_sandbox_message", "", `StopSandbox(StopSandboxRequest {`, "StopSandbox"},
		{"start_process", "", `StartProcess(`, ""},
		{"create_container", "", "", ""},
	} {
		m := method(&traits{name: []byte(tc.name), pkg: []byte(tc.pkg)}, parseRequest([]byte(tc.req)))
		if m != tc.want {
			t.Errorf("%s of %s, %s: %q, want %q", tc.name, tc.pkg, tc.req, m, tc.want)
		}
	}
}
