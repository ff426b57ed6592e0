package agentconfig

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/middleware"
)

// Method returns what is known of a request to the agent, for relays of such requests
// (middleware.WithMethods).
func Method(service, name string) middleware.Method {
	r := kata.RequestNamed(name)
	if r == nil || r.Service() != service {
		return middleware.Method{}
	}
	return middleware.Method{
		Fields: middleware.Fields{
			ContainerID: protowire.Number(r.ContainerID),
			ExecID:      protowire.Number(r.ExecID),
			SandboxID:   protowire.Number(r.SandboxID),
			Signal:      protowire.Number(r.Signal),
			ExitStatus:  protowire.Number(r.ExitStatus),
		},
		Waits:        r.Waits,
		Last:         r.Last,
		FirstProcess: true,
		Over:         over(r),
	}
}

// over returns how the answer shows that a request's waiting has ended, nil if none does.
func over(r *kata.Request) func(*middleware.Call) bool {
	switch {
	case r.EndText != "":
		return func(c *middleware.Call) bool { return strings.HasSuffix(c.Message, r.EndText) }
	case r.EndCode != 0:
		return func(c *middleware.Call) bool { return c.Code == middleware.Code(r.EndCode) }
	}
	return nil
}
