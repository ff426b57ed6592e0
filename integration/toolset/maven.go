package toolset

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Jar returns the path of an artifact of Maven's, once it is built.
func (t Tool) Jar(root string) string { return filepath.Join(t.Dir(root), t.Name+".jar") }

// mavenPlugin is the version of Maven's plugin that gets artifacts.
const mavenPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"

// getArtifact puts t's artifact into bin.
func (t Tool) getArtifact(ctx context.Context, work, bin string) error {
	if _, err := Output(ctx, work, "mvn", "-q", "-B", mavenPlugin+":copy", "-Dartifact="+t.Maven,
		"-DoutputDirectory="+work, "-Dmdep.stripClassifier=true", "-Dmdep.stripVersion=true"); err != nil {
		return err
	}
	jars, _ := filepath.Glob(filepath.Join(work, "*.jar"))
	for _, jar := range jars {
		return os.Rename(jar, filepath.Join(bin, t.Name+".jar"))
	}
	return errors.New("mvn has left no jar")
}
