// Package rig runs a private, real containerd for tests and demonstrations.
//
// A [Rig] is containerd 2.4 or 1.7 with its own root, state, sockets, /run,
// CNI networks, and mount and network namespaces: several can run at once,
// beside a containerd of the machine's own, and none sees another. ctr,
// nerdctl and crictl run inside the same namespaces. What a rig makes, Close
// removes; what a scenario leaves behind (shim processes, sockets, mounts,
// bundles, cgroups) is an error of Close, and so fails the test.
//
// The package knows nothing of shimtrace: the shim under test is a program in
// [Options.Path] and a [Runtime]. That is how one scenario runs bare and
// wrapped:
//
//	func scenario(t *testing.T, r *rig.Rig, rt rig.Runtime) {
//		res := r.Ctr("run", "--rm", "--runtime", rt.Shim(), image.Busybox, "c1", "echo", "hi")
//		if err := res.Check(); err != nil {
//			t.Fatal(err)
//		}
//	}
//
//	wrapped := rig.Runtime{Name: "runc-traced", Type: "io.containerd.runc.v2",
//		Path: dir + "/containerd-shim-runc-traced-v2"}
//	r := rig.Start(t, rig.Options{Version: rig.V24, Path: []string{dir},
//		Env:      []string{"SHIMTRACE_CONFIG=" + config},
//		Runtimes: []rig.Runtime{wrapped}})
//	scenario(t, r, rig.Runc)
//	scenario(t, r, wrapped)
//
// How each client names a runtime:
//
//   - ctr: --runtime with [Runtime.Shim], a path or a type.
//   - nerdctl: --runtime with a type. It takes a path for another runc, so the
//     shim's directory belongs in [Options.Path] and its type is
//     io.containerd.<name>.v2, for instance io.containerd.runc.traced.
//   - CRI: [Pod.Runtime] is a [Runtime.Name]; Path and Type are in containerd's
//     configuration. CRI gives runc its options only for the type
//     io.containerd.runc.v2, so runc's wrapper has that type and a Path.
//
// Inside, /run and /var/lib/cni are empty directories of the rig, kept in
// [Rig.Dir]/run and [Rig.Dir]/cni; all other paths are the machine's. So the
// programs and files that a test brings must not be below /run.
//
// A collector for the shims must listen where they run, in [Rig.NetNS]; the
// otlprecv package does.
//
// The rig needs root, Linux, the programs that the tools command builds, and
// a few Debian packages. New returns a [*MissingError] that names all that is
// absent; Start skips the test with it, or fails it when CI is set.
package rig
