package telemetry_test

import (
	"context"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

func Example() {
	ctx := context.Background()
	tel, err := telemetry.Start(ctx, "gateway", telemetry.Config{LogLevel: "warn"}, os.Stderr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = tel.Shutdown(ctx) }()

	ctx, span := tel.Tracer("github.com/runnelhq/runnel/services/gateway").Start(ctx, "publish", telemetry.Send("in.3"))
	defer span.End()
	msg := nats.NewMsg("in.3")
	msg.Header = telemetry.InjectHeader(ctx, msg.Header)
	fmt.Println(tel.Tracing(), len(msg.Header))
	// Output: false 0
}
