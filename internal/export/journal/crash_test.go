package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
)

// crashOptions make the writers rotate all the time and keep everything.
var crashOptions = Options{SegmentBytes: 16 << 10, MaxBytes: 1 << 30}

// writerProcess appends spans and reports each on standard output, until it is killed.
func writerProcess(dir string) {
	j, err := Open(dir, crashOptions)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	pad := strings.Repeat("x", 600)
	for i := 0; ; i++ {
		name := fmt.Sprintf("%d-%d-", os.Getpid(), i)
		if err := journaltest.Append(j, batch(name+pad)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if _, err := fmt.Println(name); err != nil {
			return
		}
	}
}

// startWriter starts a writer process. The channel gets its reports once it is dead; begun is
// closed with the first of them.
func startWriter(t *testing.T, dir string) (_ *exec.Cmd, begun <-chan struct{}, _ <-chan []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	written, first := make(chan []string, 1), make(chan struct{})
	begin := sync.OnceFunc(func() { close(first) })
	go func() {
		defer begin()
		var names []string
		in := bufio.NewReader(out)
		for {
			line, err := in.ReadString('\n')
			if err != nil { // a line without its end was not reported
				break
			}
			names = append(names, strings.TrimSpace(line))
			begin()
		}
		_ = cmd.Wait()
		written <- names
	}()
	return cmd, first, written
}

// TestKilledWriters kills several appending processes at random moments, while a
// follower and scans read.
func TestKilledWriters(t *testing.T) {
	dir := t.TempDir()
	stop := make(chan struct{})
	followed := make(map[string]int)
	var readers sync.WaitGroup
	f := Follow(dir, Cursor{})
	defer f.Close()
	drain := func() error {
		for {
			r, err := f.Next()
			if err != nil {
				return err
			}
			for _, n := range spanNames(t, r) {
				followed[strings.TrimRight(n, "x")]++
			}
		}
	}
	readers.Go(func() {
		for {
			if err := drain(); !errors.Is(err, io.EOF) {
				t.Errorf("follower: %v", err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	readers.Go(func() {
		for {
			if _, err := Scan(dir, func(Record) error { return nil }); err != nil {
				t.Errorf("scan: %v", err)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})

	var reported []string
	var mu sync.Mutex
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for i := range 8 {
				cmd, begun, written := startWriter(t, dir)
				if i%2 == 0 { // in the other cases it may be killed before
					<-begun
				}
				time.Sleep(time.Duration(20+rand.IntN(80)) * time.Millisecond)
				_ = cmd.Process.Kill()
				names := <-written
				mu.Lock()
				reported = append(reported, names...)
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if err := drain(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}

	scanned := make(map[string]int)
	st, err := Scan(dir, func(r Record) error {
		for _, n := range spanNames(t, r) {
			scanned[strings.TrimRight(n, "x")]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(reported) == 0 {
		t.Fatal("nothing was written")
	}
	for _, n := range reported {
		if scanned[n] != 1 || followed[n] != 1 {
			t.Fatalf("span %q was reported as written: scanned %d times, followed %d times", n, scanned[n], followed[n])
		}
	}
	if len(scanned) != len(followed) {
		t.Errorf("%d spans scanned, %d followed", len(scanned), len(followed))
	}
	t.Logf("%d reported, %d found in %d segments, %d bytes torn", len(reported), len(scanned), st.Segments, st.CorruptBytes)
}
