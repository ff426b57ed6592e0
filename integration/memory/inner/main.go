// Command inner is a shim for tests of what a relay takes of memory. It has no containers
// (package idleshim), and posts, when it is told to, what a Kata runtime has posted.
// containerd-shim-kata-v2 is the name to run it by.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/integration/idleshim"
	"github.com/shimtrace/shimtrace/integration/memory/post"
)

func main() {
	idleshim.Main(func(server *ttrpc.Server) {
		server.Register(post.Service, map[string]ttrpc.Method{post.Method: func(_ context.Context, unmarshal func(any) error) (any, error) {
			var body wrapperspb.BytesValue
			if err := unmarshal(&body); err != nil {
				return nil, err
			}
			return new(emptypb.Empty), toJaeger(body.Value)
		}})
	})
}

func toJaeger(body []byte) error {
	resp, err := http.Post(os.Getenv(post.URLEnv), "application/x-thrift", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}
