package relays

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// status is a relay and its last answer.
type status struct {
	relay  control.Relay
	answer control.Answer // zero if the relay cannot be asked
	err    error
	ended  bool // its socket has no listener
}

// maxAsked bounds the relays asked at the same time: more than a host has pods, so that
// none waits behind others that hang.
const maxAsked = 512

// survey returns the living relays below a state directory.
func survey(ctx context.Context, dir string) ([]*status, error) {
	list, err := control.List(dir)
	if err != nil {
		return nil, err
	}
	var all []*status
	for _, r := range list {
		all = append(all, &status{relay: r})
	}
	askAll(ctx, all, control.Request{Do: control.DoStatus})
	return slices.DeleteFunc(all, func(r *status) bool { return r.ended }), nil
}

// Look returns the living relays that names mean, all if there is no name, in the order of
// their files. A relay that has not answered when ctx ends says so. The error is a
// [console.NothingFound] if there are none.
func Look(ctx context.Context, dir string, names []string) ([]Report, error) {
	all, err := survey(ctx, dir)
	if err != nil {
		return nil, err
	}
	named, err := choose(all, names, control.DoStatus)
	var reports []Report
	for _, r := range named {
		reports = append(reports, r.report())
	}
	return reports, err
}

// askAll asks relays concurrently. Those that cannot be switched may be too old to be asked.
func askAll(ctx context.Context, relays []*status, req control.Request) {
	slots := make(chan struct{}, maxAsked)
	var wg sync.WaitGroup
	for _, r := range relays {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			answer, err := control.Ask(ctx, r.relay.Socket, req)
			if !r.relay.Dynamic && control.NobodyListens(err) {
				r.ended = !control.Listens(ctx, r.relay.RelaySock)
				return
			}
			r.ended = control.NobodyListens(err)
			if r.err = err; err == nil || answer.Sandbox != "" {
				r.answer = answer
			}
		})
	}
	wg.Wait()
}

// choose returns the relays that names mean, each once.
func choose(all []*status, names []string, do string) ([]*status, error) {
	if len(all) == 0 {
		return nil, console.NothingFound("no traced sandbox runs: start one through a traced runtime (shimtrace install says how)")
	}
	if len(names) == 0 || slices.Equal(names, []string{"all"}) {
		if do == control.DoStatus {
			return all, nil
		}
		dynamic := slices.DeleteFunc(slices.Clone(all), func(r *status) bool { return !r.relay.Dynamic })
		if len(dynamic) == 0 {
			return nil, console.NothingFound("none of the %d sandboxes that run can be switched: %s", len(all), whyStatic)
		}
		return dynamic, nil
	}
	var chosen []*status
	for _, name := range names {
		found := find(all, name)
		switch {
		case len(found) == 0:
			return nil, console.NothingFound("no traced sandbox that runs is called %q; shimtrace status lists the %d that there are", name, len(all))
		case len(found) > 1:
			var ids []string
			for _, r := range found {
				ids = append(ids, r.relay.Name()+" "+r.relay.Sandbox)
			}
			return nil, console.UsageError("%q may mean %d of them; name one by its id:\n%s", name, len(found), strings.Join(ids, "\n"))
		}
		r := found[0]
		if !r.relay.Dynamic && do != control.DoStatus {
			return nil, fmt.Errorf("sandbox %s cannot be switched: %s", r.relay.Name(), whyStatic)
		}
		if !slices.Contains(chosen, r) {
			chosen = append(chosen, r)
		}
	}
	return chosen, nil
}

// whyStatic says why a sandbox cannot be switched, and what to do.
const whyStatic = "trace.mode \"static\" traces them all the time; with trace.mode = \"dynamic\" in the configuration, which those that run follow, they can be switched"

// find returns the relays that a name means: those with that id or name, else those
// with an id that begins with it.
func find(all []*status, name string) []*status {
	if name == "" { // the name of a pod's first container
		return nil
	}
	for _, means := range []func(*status) bool{
		func(r *status) bool {
			return name == r.relay.Sandbox || r.relay.Pod != "" && (name == r.relay.Pod || name == r.relay.PodNamespace+"/"+r.relay.Pod) ||
				slices.ContainsFunc(r.answer.Containers, func(c control.Container) bool { return name == c.ID || name == c.Name })
		},
		func(r *status) bool {
			return strings.HasPrefix(r.relay.Sandbox, name) ||
				slices.ContainsFunc(r.answer.Containers, func(c control.Container) bool { return strings.HasPrefix(c.ID, name) })
		},
	} {
		var found []*status
		for _, r := range all {
			if means(r) {
				found = append(found, r)
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// withoutEnded leaves out sandboxes that have ended meanwhile, unless they were named.
func withoutEnded(relays []*status, names []string) []*status {
	if !slices.Equal(names, []string{"all"}) {
		return relays
	}
	return slices.DeleteFunc(relays, func(r *status) bool { return r.ended })
}

func countStatic(relays []*status) (n int) {
	for _, r := range relays {
		if !r.relay.Dynamic {
			n++
		}
	}
	return n
}
