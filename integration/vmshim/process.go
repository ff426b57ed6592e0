package vmshim

import (
	"context"
	"fmt"
	"log"
	"sync"

	agent "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
)

// readSize is how much the Go runtime asks for at a time.
const readSize = 32 << 10

// follow does for a started process what Kata's runtime does until it ends: it
// reads its output, if it has any, and when that is over waits for the process. A
// process without streams, a pod's first, is waited for from the beginning.
//
// Nothing runs in the VM. When exited returns the status of the process that
// really ran, the agent is told to let its own end. Its wait is part of the call of
// ctx, which was over long before.
func (sb *sandbox) follow(ctx context.Context, id, exec string, exited func(context.Context) (uint32, error)) {
	waited := make(chan struct{})
	sb.mu.Lock()
	p := sb.processes[processID{id, exec}]
	if p == nil {
		sb.mu.Unlock()
		return
	}
	p.waited = waited
	sb.mu.Unlock()
	name := execID(id, exec)
	sb.background.Go(func() {
		defer close(waited)
		var streams sync.WaitGroup
		if p.hasStreams {
			streams.Go(func() { sb.readOutput(id, name) })
			streams.Go(func() { drain(sb.life, id, name, sb.agent().ReadStderr, func([]byte) {}) })
		}
		sb.background.Go(func() {
			status, err := exited(sb.life)
			if err != nil {
				return // the runc shim is gone; so will be the VM
			}
			line := fmt.Appendf(nil, "exit %d\n", status)
			if _, err := sb.agent().WriteStdin(sb.life, &agent.WriteStreamRequest{ContainerId: id, ExecId: name, Data: line}); err != nil {
				log.Printf("vmshim: end process %s of %s: %v", name, id, err)
			}
		})
		streams.Wait()
		ctx, end := begin(ctx, "waitProcess", ofAgent)
		defer end()
		if _, err := sb.agent().WaitProcess(ctx, &agent.WaitProcessRequest{ContainerId: id, ExecId: name}); err != nil {
			log.Printf("vmshim: wait for process %s of %s: %v", name, id, err)
		}
	})
}

// readOutput reads a process's output to its end, and compares it if it is known.
func (sb *sandbox) readOutput(id, name string) {
	n := 0
	drain(sb.life, id, name, sb.agent().ReadStdout, func(piece []byte) {
		for i, b := range piece {
			if at := n + i; sb.output > 0 && b != outputByte(at) {
				log.Printf("vmshim: byte %d of the output of %s of %s is %#x", at, name, id, b)
				sb.vm.kill()
				return
			}
		}
		n += len(piece)
	})
	if n < sb.output && sb.life.Err() == nil {
		log.Printf("vmshim: the output of %s of %s ends after %d bytes of %d", name, id, n, sb.output)
		sb.vm.kill()
	}
}

// outputByte is what the agent's processes write at an offset.
func outputByte(at int) byte { return byte(at ^ at>>8 ^ at>>16) }

// drain reads one stream to its end.
func drain(ctx context.Context, id, name string, read func(context.Context, *agent.ReadStreamRequest) (*agent.ReadStreamResponse, error), got func([]byte)) {
	for {
		answer, err := read(ctx, &agent.ReadStreamRequest{ContainerId: id, ExecId: name, Len: readSize})
		if err != nil {
			return
		}
		got(answer.Data)
	}
}

func (sb *sandbox) note(id processID, p *process) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	sb.processes[id] = p
}

func (sb *sandbox) find(id processID) *process {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return sb.processes[id]
}

// forget keeps the processes of a container no longer, and returns what to wait
// for until the agent has told the end of those that had started.
func (sb *sandbox) forget(container string) []<-chan struct{} {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	var waited []<-chan struct{}
	for id, p := range sb.processes {
		if id.container != container {
			continue
		}
		delete(sb.processes, id)
		if p.waited != nil {
			waited = append(waited, p.waited)
		}
	}
	return waited
}
