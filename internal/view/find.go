package view

import (
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// find returns the stories that a query means: the latest for "", those with that id or
// name, else those with an id that begins with it.
func find(stories []*waterfall.Story, query string) []*waterfall.Story {
	if query == "" {
		return stories[max(0, len(stories)-1):]
	}
	for _, means := range []func(*waterfall.Story, string) bool{hasTrace, isCalled, idBegins} {
		var found []*waterfall.Story
		for _, s := range stories {
			if means(s, query) {
				found = append(found, s)
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// like returns the stories of pods and containers with the query in their names.
func like(stories []*waterfall.Story, query string) (found []*waterfall.Story) {
	for _, s := range stories {
		if strings.Contains(s.PodNamespace+"/"+s.Pod, query) ||
			slices.ContainsFunc(s.Containers, func(c waterfall.Container) bool { return strings.Contains(c.Name, query) }) {
			found = append(found, s)
		}
	}
	return found
}

// hasTrace matches a whole trace id.
func hasTrace(s *waterfall.Story, query string) bool {
	return len(query) == 32 && hasTracePrefix(s, query)
}

// isCalled matches a whole id of the sandbox or a container, or a name.
func isCalled(s *waterfall.Story, query string) bool {
	return query == s.Sandbox || query == s.Pod || s.Pod != "" && query == s.PodNamespace+"/"+s.Pod ||
		slices.ContainsFunc(s.Containers, func(c waterfall.Container) bool { return query == c.ID || query == c.Name })
}

// idBegins matches the beginning of an id of the sandbox, a container or a trace.
func idBegins(s *waterfall.Story, query string) bool {
	return strings.HasPrefix(s.Sandbox, query) || hasTracePrefix(s, query) ||
		slices.ContainsFunc(s.Containers, func(c waterfall.Container) bool { return strings.HasPrefix(c.ID, query) })
}

func hasTracePrefix(s *waterfall.Story, query string) bool {
	query = strings.ToLower(query)
	for _, id := range s.Traces {
		if strings.HasPrefix(id.String(), query) {
			return true
		}
	}
	return false
}
