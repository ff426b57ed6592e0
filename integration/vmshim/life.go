package vmshim

import (
	"context"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What a shim has from its first call to its last: the trace, within that the VM, and
// in that its containers.

// call begins the span of a call, which the context for requests to the agent has.
func (t *tasks) call(name string) (vm context.Context, end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tracing == nil {
		return t.life, func() {}
	}
	return begin(t.tracing.ctx, name, ofShim)
}

func (t *tasks) startTracing() (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tracing == nil {
		t.tracing, err = startTracing(t.life, t.settings)
	}
	return err
}

func (t *tasks) endTracing() {
	t.mu.Lock()
	tracing := t.tracing
	t.tracing = nil
	t.mu.Unlock()
	if tracing != nil {
		tracing.end()
	}
}

// count returns how many containers there are, with so many more.
func (t *tasks) count(more int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.containers += more
	return t.containers
}

func (t *tasks) current() *sandbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sandbox
}

func (t *tasks) set(sb *sandbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sandbox = sb
}

// boot returns the sandbox, which the first container's id names.
func (t *tasks) boot(vm context.Context, id string, spec *specs.Spec) (*sandbox, error) {
	t.booting.Lock()
	defer t.booting.Unlock()
	if sb := t.current(); sb != nil {
		return sb, nil
	}
	t.mu.Lock()
	life := t.tracing.ctx
	t.mu.Unlock()
	sb, err := bootSandbox(vm, life, t.settings, id, spec)
	t.set(sb)
	return sb, err
}

// endIf ends the sandbox if it is the one of that id.
func (t *tasks) endIf(vm context.Context, sb *sandbox, id string) {
	if sb.id == id {
		t.end(vm)
	}
}

// end ends the sandbox, if there is one.
func (t *tasks) end(vm context.Context) {
	t.booting.Lock()
	defer t.booting.Unlock()
	if sb := t.current(); sb != nil {
		logged("end", sb.id, sb.end(vm))
		t.set(nil)
	}
}
