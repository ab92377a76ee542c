package rpc_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

func TestInprocSidesHaveTheirOwnStructs(t *testing.T) {
	var kept *historyv1.AppendRequest
	cached := &historyv1.AppendResponse{}
	client := historyv1.NewHistoryServiceClient(inProcess(t, telemetry.Discard(), &history{
		append: func(_ context.Context, r *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			kept = r
			return cached, nil
		},
	}))
	request := batch(2)
	request.ProtoReflect().SetUnknown(protowire.AppendTag(nil, 99, protowire.BytesType))
	got, err := client.Append(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, request.ProtoReflect().GetUnknown(), kept.ProtoReflect().GetUnknown())

	request.Partition, request.Events = 1, append(request.GetEvents(), request.GetEvents()[0])
	request.Expected = nil
	require.True(t, proto.Equal(batch(2).GetExpected(), kept.GetExpected()))
	require.EqualValues(t, 7, kept.GetPartition())
	require.Len(t, kept.GetEvents(), 2)
	got.Duplicates = []*historyv1.Duplicate{{}}
	require.Empty(t, cached.GetDuplicates())
}

func TestInprocReplacesTheReply(t *testing.T) {
	conn := inProcess(t, telemetry.Discard(), &history{
		append: func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			return &historyv1.AppendResponse{}, nil
		},
	})
	reply := &historyv1.AppendResponse{Duplicates: []*historyv1.Duplicate{{}}}
	require.NoError(t, conn.Invoke(t.Context(), historyv1.HistoryService_Append_FullMethodName, batch(1), reply))
	require.Empty(t, reply.GetDuplicates())
}

func TestInprocRefuses(t *testing.T) {
	conn := inProcess(t, telemetry.Discard(), &history{})
	method := historyv1.HistoryService_Append_FullMethodName
	require.Equal(t, codes.Internal, status.Code(conn.Invoke(t.Context(), method, &historyv1.ReadRequest{}, &historyv1.AppendResponse{})))
	require.Equal(t, codes.Internal, status.Code(conn.Invoke(t.Context(), method, "text", &historyv1.AppendResponse{})))
	_, err := conn.NewStream(t.Context(), nil, method)
	require.Equal(t, codes.Unimplemented, status.Code(err))
}

func TestInprocMistakesInTheProgram(t *testing.T) {
	inproc := rpc.NewInproc(telemetry.Discard())
	historyv1.RegisterHistoryServiceServer(inproc, &history{})
	require.PanicsWithValue(t, "rpc: /runnel.history.v1.HistoryService/Append is registered twice",
		func() { historyv1.RegisterHistoryServiceServer(inproc, &history{}) })
	require.Panics(t, func() { inproc.RegisterService(&deliveryv1.DeliveryService_ServiceDesc, &history{}) })
}

func ExampleInproc() {
	inproc := rpc.NewInproc(telemetry.Discard())
	historyv1.RegisterHistoryServiceServer(inproc, &history{
		append: func(_ context.Context, r *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			fmt.Println("events:", len(r.GetEvents()))
			return &historyv1.AppendResponse{}, nil
		},
	})
	client := historyv1.NewHistoryServiceClient(inproc)
	_, err := client.Append(context.Background(), batch(2))
	fmt.Println("error:", err)
	// Output:
	// events: 2
	// error: <nil>
}

func BenchmarkAppend(b *testing.B) {
	for name, connect := range map[string]transport{"network": overNetwork, "in process": inProcess} {
		for _, events := range []int{1, 100} {
			b.Run(fmt.Sprintf("%s/%d", name, events), func(b *testing.B) {
				client := historyv1.NewHistoryServiceClient(connect(b, telemetry.Discard(), &history{
					append: func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
						return &historyv1.AppendResponse{}, nil
					},
				}))
				request := batch(events)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := client.Append(b.Context(), request); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkDeepCopy measures the additional cost of a call within the process if messages were deep-copied.
func BenchmarkDeepCopy(b *testing.B) {
	request := batch(100)
	b.ReportAllocs()
	for b.Loop() {
		proto.Merge(&historyv1.AppendRequest{}, request)
	}
}
