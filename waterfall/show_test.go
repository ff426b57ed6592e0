package waterfall
import ("testing";"os")
func TestShow(t *testing.T){
 s,tr:=only(kataPod().spans)
 for _,w:=range []int{60,80,120}{ Render(os.Stdout,s,tr,Options{Width:w}) }
 Render(os.Stdout,s,tr,Options{Width:120,Color:true})
}
