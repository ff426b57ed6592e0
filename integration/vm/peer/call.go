package main

import (
	"context"
	"time"

	"github.com/shimtrace/shimtrace/integration/vm/agentcall"
)

// call calls the Kata agent at a port: a method, a container's id and a
// traceparent, either of which may be empty.
func call(cid, port, method, container, traceparent string) error {
	conn, err := connect(cid, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return agentcall.Call(ctx, conn, method, container, traceparent)
}
