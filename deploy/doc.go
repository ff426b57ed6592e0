// Package deploy is what runs shimtrace in a cluster: a Helm chart, the same as plain
// manifests, an image, and a plugin of kubectl. It has no code but the tests of these.
package deploy
