// Package agentcall calls the Kata agent in a guest, as Kata's runtime does but
// without its types: the RPCs that tests need are told apart by two ids.
package agentcall

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Call calls a method of the agent's service over a connection of its own, which
// it closes. The container's id is left out if empty. A traceparent in W3C's form
// goes with the request, unless empty.
func Call(ctx context.Context, conn net.Conn, method, container, traceparent string) error {
	client := ttrpc.NewClient(conn)
	defer client.Close()
	if traceparent != "" {
		ctx = ttrpc.WithMetadata(ctx, ttrpc.MD{"traceparent": {traceparent}})
	}
	// All requests about a container have its id as field 1
	// (kata-containers, src/libs/protocols/protos/agent.proto).
	var fields []byte
	if container != "" {
		fields = protowire.AppendTag(fields, 1, protowire.BytesType)
		fields = protowire.AppendString(fields, container)
	}
	request := new(emptypb.Empty)
	request.ProtoReflect().SetUnknown(fields)
	err := client.Call(ctx, "grpc.AgentService", method, request, new(emptypb.Empty))
	if method == "DestroySandbox" && errors.Is(err, ttrpc.ErrClosed) {
		return nil // the client can see the agent's end before its answer
	}
	if err != nil {
		return fmt.Errorf("call %s of the agent: %w", method, err)
	}
	return nil
}
