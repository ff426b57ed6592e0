package otlprecv

import (
	"context"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

type grpcService struct {
	collector.UnimplementedTraceServiceServer
	receiver *Receiver
}

var _ collector.TraceServiceServer = (*grpcService)(nil)

func (s *grpcService) Export(ctx context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	fault := s.receiver.attempt()
	switch {
	case fault.Hang:
		s.receiver.hang(ctx)
		return nil, status.Error(codes.Unavailable, "closed")
	case fault.Code != codes.OK:
		st := status.New(fault.Code, fault.Message)
		if fault.RetryAfter > 0 {
			var err error
			st, err = st.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(fault.RetryAfter)})
			if err != nil {
				return nil, err
			}
		}
		return nil, st.Err()
	}
	header, _ := metadata.FromIncomingContext(ctx)
	s.receiver.accept(Request{Protocol: "grpc", Header: header, Body: req})
	return response(fault), nil
}
