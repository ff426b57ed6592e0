package faults

import (
	"os"
	"strconv"
)

// sizeEnv says how much is done: "all" is every fault, a number the kills of a soak. A
// run of all tests, without it, does a short selection.
const sizeEnv = "SHIMTRACE_FAULTS"

// All reports whether every fault is to be tried.
func All() bool { return os.Getenv(sizeEnv) != "" }

// Whole reports whether the number of kills is one that docs/reliability.md has rows for:
// that of make test-faults, and of make soak-faults.
func Whole() bool { return Kills() == testKills || Kills() == soakKills }

const testKills, soakKills = 500, 10_000

// Kills returns how many processes are to be killed.
func Kills() int {
	if n, err := strconv.Atoi(os.Getenv(sizeEnv)); err == nil {
		return n
	}
	if All() {
		return testKills
	}
	return 40
}
