package plan_test

import (
	"testing"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
)

func BenchmarkPlan(b *testing.B) {
	commands := []*brokerv1.Command{deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))}
	for i := range 511 {
		commands = append(commands, deliverytest.Command(commands[0].GetConversationId(), "ann", i+2, deliverytest.Text("a message of a usual length, somewhat more than a few words")))
	}
	batch := deliverytest.Messages(b, commands...)
	p := plan.Planner{Partitions: 1, Apply: conversation.Apply}
	b.ReportAllocs()
	for b.Loop() {
		p.Make(batch, dedupe.NewFacts(), nothing())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/command")
}
