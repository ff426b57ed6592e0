package guard

import "runtime/debug"

// BuildOf returns what a program was made of, as Registration.Build has it.
func BuildOf(info *debug.BuildInfo) string {
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (version == "" || version == "(devel)") {
			version = s.Value
		}
	}
	return version
}
