package toolset

import (
	"fmt"
	"os/exec"
	"strings"
)

// A Need is something of the operating system that a build cannot do without.
type Need struct {
	Package string // the Debian package that has it
	Check   []string
}

var (
	needGCC       = Need{"gcc", []string{"gcc", "--version"}}
	needPkgConfig = Need{"pkg-config", []string{"pkg-config", "--version"}}
	needJava      = Need{"openjdk-17-jre-headless", []string{"java", "-version"}}
	needMaven     = Need{"maven", []string{"mvn", "-version"}}
	needSeccomp   = Need{"libseccomp-dev", []string{"pkg-config", "--exists", "libseccomp"}}
)

// missing returns an error that names every absent package of t at once.
func (t Tool) missing() error {
	var absent []string
	for _, n := range t.Needs {
		if exec.Command(n.Check[0], n.Check[1:]...).Run() != nil {
			absent = append(absent, n.Package)
		}
	}
	if absent == nil {
		return nil
	}
	return fmt.Errorf("build %s: missing packages: run apt-get install %s", t, strings.Join(absent, " "))
}
