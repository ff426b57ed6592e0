// Package containerd finds the containerd that runs on this host, asks its CRI which
// handlers it has loaded, and restarts it. It reads no configuration; package
// containerdconf does.
package containerd
