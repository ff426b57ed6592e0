package agentconfig

import (
	"reflect"
	"testing"

	"github.com/shimtrace/shimtrace/internal/config"
)

// TestEveryLimitCounts: each limit of the configuration changes an option.
func TestEveryLimitCounts(t *testing.T) {
	plain := config.Default()
	limits := reflect.TypeFor[config.AgentLimits]()
	for i := range limits.NumField() {
		changed := plain
		field := reflect.ValueOf(&changed.Agent.Limits).Elem().Field(i)
		field.SetInt(field.Int() + 1)
		if reflect.DeepEqual(Limits(changed.Agent), Limits(plain.Agent)) && reflect.DeepEqual(Isolated(changed), Isolated(plain)) {
			t.Errorf("agent.limits.%s has no effect", limits.Field(i).Tag.Get("toml"))
		}
	}
}

func TestSockets(t *testing.T) {
	cfg := config.Default().Agent
	if len(Sockets(cfg)) == 0 {
		t.Error("no sockets are known")
	}
	cfg.Sockets = map[string]string{"b": "/b/{sandbox}", "a": "/a/{sandbox}"}
	if got := Sockets(cfg); len(got) != 2 || got[0].VMM != "a" || got[1].Path != "/b/{sandbox}" {
		t.Errorf("%+v", got)
	}
}
