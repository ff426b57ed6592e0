package kata

import "github.com/shimtrace/shimtrace/internal/shim/control"

// Facts adds what is known of the spans of the agent and the runtime, and of the guest's
// clock.
func (o *Observer) Facts(f *control.Facts) {
	st := o.own.Stats()
	held := int64(st.Held)
	f.Held, f.Reparented, f.Placeholders = &held, &st.Inferred, &st.Placeholders
	if offset, set, known := o.own.Clock(); known {
		f.Clock = &control.Clock{Offset: offset, Set: set}
	}
}
