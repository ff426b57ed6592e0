package html

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
	"github.com/shimtrace/shimtrace/internal/waterfall/treetest"
)

// write returns the page of the only story in the spans.
func write(t *testing.T, data []byte, change func(*Page)) string {
	t.Helper()
	s, tree := treetest.Only(t, data)
	p := Page{Story: s, Tree: tree}
	if change != nil {
		change(&p)
	}
	var out bytes.Buffer
	if err := Write(&out, p); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

var dataScript = regexp.MustCompile(`(?s)<script type="application/json" id="data">(.*?)</script>`)

func dataOf(t *testing.T, page string) (d pageData) {
	t.Helper()
	m := dataScript.FindStringSubmatch(page)
	if m == nil {
		t.Fatal("the page has no data")
	}
	if err := json.Unmarshal([]byte(m[1]), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPage: a page has every span of a real pod in its place, and no address of the
// network.
func TestPage(t *testing.T) {
	for _, name := range storytest.Pods {
		data := storytest.Captured(name)
		page := write(t, data, nil)
		var spans tracepb.TracesData
		if err := proto.Unmarshal(data, &spans); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, rs := range spans.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				want += len(ss.Spans)
			}
		}
		d, got := dataOf(t, page), 0
		for i, s := range d.Spans {
			if s.Parent != nil && *s.Parent >= i {
				t.Errorf("%s: span %d comes before its parent", name, i)
			}
			if !s.Absent {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d spans, want %d", name, got, want)
		}
		if at := strings.Index(dataScript.ReplaceAllString(page, ""), "://"); at >= 0 {
			t.Errorf("%s: the page names an address", name)
		}
		t.Logf("%s: %d kB for %d spans", name, len(page)/1000, got)
	}
}

// TestHostile: no recorded text leaves the data of the page, nor ends the script.
func TestHostile(t *testing.T) {
	s := &storytest.Script{}
	evil := `</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>` + "\u2028\x00\x1b[2J\u202e"
	res := storytest.Resource("containerd-shim-runc-v2", storytest.Attr(names.Pod, evil))
	res.Attributes[4] = storytest.Attr(names.Pod, evil)
	s.Span(res, evil, "root", "", names.SandboxStart, 0, time.Second)
	s.Span(res, evil, "a", "root", evil, 0, time.Second, storytest.With(storytest.Attr(evil, evil)), storytest.Event(evil, 0), storytest.Failed(evil, evil))
	page := write(t, storytest.Message(s.Spans), func(p *Page) {
		p.Head, p.Findings = []string{evil}, []Finding{{evil, []string{evil}}}
	})
	if n := strings.Count(page, "</script>"); n != 2 {
		t.Errorf("%d scripts end, want 2", n)
	}
	for _, not := range []string{"<img", "<!--", "\x00", "\x1b", "\u2028", "\u202e"} {
		if strings.Contains(page, not) {
			t.Errorf("the page has %q", not)
		}
	}
	if d := dataOf(t, page); !strings.Contains(d.Spans[1].Name, "alert(2)") {
		t.Errorf("the name is not there: %q", d.Spans[1].Name)
	}
}

// TestPolicy: the page's policy names the hashes of the style and script that it has.
func TestPolicy(t *testing.T) {
	page := write(t, storytest.Message(storytest.KataPod().Spans), nil)
	for _, tag := range []string{"style", `script type="module"`} {
		text := regexp.MustCompile(`(?s)<` + tag + `>(.*?)</`).FindStringSubmatch(page)
		if text == nil {
			t.Fatalf("no %s", tag)
		}
		if !strings.Contains(strings.ReplaceAll(page, "&#43;", "+"), hash(text[1])) {
			t.Errorf("the policy does not name the %s", tag)
		}
	}
}
