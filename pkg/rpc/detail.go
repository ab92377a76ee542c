package rpc

import (
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Detail returns the first detail of a call's error that has the type T; ok is false if there is none.
func Detail[T proto.Message](err error) (detail T, ok bool) {
	st, _ := status.FromError(err)
	for _, each := range st.Details() {
		if detail, ok = each.(T); ok {
			return detail, true
		}
	}
	return detail, false
}
