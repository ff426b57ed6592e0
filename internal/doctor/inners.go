package doctor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/programs"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// runTime bounds the run of a program.
const runTime = 5 * time.Second

// inners checks whether each link leads to an inner shim that runs. It asks the link
// itself for its version, as containerd would: the inner shim answers.
func inners(ctx context.Context, s *site) (all []Finding) {
	seen := make(map[shimname.Name]bool)
	for _, l := range s.links {
		if seen[l.inner] || l.target == "" || !l.ours {
			continue
		}
		seen[l.inner] = true
		all = append(all, s.inner(ctx, l))
	}
	return all
}

func (s *site) inner(ctx context.Context, l link) Finding {
	f := Finding{Level: OK, What: l.inner.File() + " is there", Where: l.path}
	do := fmt.Sprintf("install %s, or set shim in [runtime.%s] of %s", l.inner.File(), l.inner.Inner, config.DefaultPath)
	if !s.live() {
		cfg, _ := config.Load(l.inner.Inner, s.getenv)
		if named := cfg.Shim; named != "" && !programs.Executable(s.in(named)) && s.lookPath(named) == "" {
			f.Level, f.What, f.Do = Error, fmt.Sprintf("the inner shim that the configuration names, %s, is not there", named), do
		}
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.Root, l.path), "-v")
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "PATH="+strings.Join(s.path, ":"))
	if v := s.Getenv(config.PathEnv); v != "" {
		cmd.Env = append(cmd.Env, config.PathEnv+"="+v)
	}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		f.Level, f.What, f.Do = Error, fmt.Sprintf("the inner shim does not answer -v within %s", runTime), do
	case err != nil:
		f.Level, f.What, f.Do = Error, fmt.Sprintf("the inner shim does not run: %v: %s", err, lastLine(complaint.String()+out.String())), do
	default:
		f.What = l.inner.File() + " runs: " + oneLine(out.String())
	}
	return f
}

// maxLine bounds what is repeated of a program's output.
const maxLine = 200

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return cut(strings.TrimSpace(lines[len(lines)-1]))
}

// oneLine returns a program's version without its line breaks.
func oneLine(text string) string { return cut(strings.Join(strings.Fields(text), " ")) }

func cut(text string) string {
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + "…"
	}
	return text
}
