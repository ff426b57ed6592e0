package keeper

// Life is what [Ask] finds of a process that a Keeper keeps.
type Life int

const (
	// Absent: no process answers for the lock.
	Absent Life = iota
	// Answers: it does.
	Answers
	// Silent: one is there, and does not answer.
	Silent
)

// Ask reports how the process is that has the lock at path, or should have it. It changes
// nothing: it leaves the lock alone, so that whoever starts the process finds it free.
func Ask(path string) Life {
	p := ping(path)
	defer p.close()
	switch {
	case p.silent && (p.conn == nil || !p.wait(hangTime/10)):
		return Silent
	case p.conn == nil:
		return Absent
	}
	return Answers
}
