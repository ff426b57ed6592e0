package traced

import (
	"testing"
	"time"
	"fmt"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
)

func gone(r *rig.Rig) {
	for i := 0; i < 200 && len(r.Shims()) > 0; i++ {
		time.Sleep(50 * time.Millisecond)
	}
}

func TestScratch(t *testing.T) {
	for _, v := range rig.Versions {
		in := Start(t, Options{Options: rig.Options{Version: v}})
		r := in.Rig
		show := func(what string) {
			gone(r)
			spans, err := in.Spans()
			fmt.Println("=====", v, what, err)
			fmt.Println(Tree(spans))
			}
		fmt.Println(r.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sh", "-c", "exit 3").Check())
		show("ctr")
		fmt.Println(r.Nerdctl("run", "-d", "--net", "none", "--name", "web", "--runtime", NerdctlRuntime, image.Busybox, "sleep", "100").Check())
		fmt.Println(r.Nerdctl("exec", "web", "sh", "-c", "exit 5").Check())
		fmt.Println(r.Nerdctl("stop", "-t", "1", "web").Check())
		fmt.Println(r.Nerdctl("rm", "web").Check())
		show("nerdctl")
		pod, err := r.RunPod(rig.Pod{Name: "pod", Runtime: in.Runtime.Name})
		if err != nil { t.Fatal(err) }
		a, err := pod.Run(rig.Container{Name: "a"})
		fmt.Println(err)
		b, err := pod.Run(rig.Container{Name: "b"})
		fmt.Println(err)
		fmt.Println(r.Crictl("exec", "-s", a, "sh", "-c", "exit 5").Check())
		fmt.Println(r.Crictl("stop", a).Check())
		fmt.Println(r.Crictl("rm", a).Check(), b)
		fmt.Println(pod.Remove())
		show("pod")
	}
}
func TestMain(m *testing.M) { m.Run(); Clean() }
