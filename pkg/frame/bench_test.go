package frame_test

import (
	"fmt"
	"testing"

	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func benchPage() *clientv1.ServerFrame {
	page := &clientv1.Page{Head: 123456, More: true, Hidden: []*conversationv1.Range{{First: 1, Last: 2}}}
	for range 50 {
		page.Events = append(page.Events, benchEvent())
	}
	return &clientv1.ServerFrame{Id: 7, Message: &clientv1.ServerFrame_Page{Page: page}}
}

func benchEvent() *clientv1.Event {
	event := frame.ToClient(chatEvent())
	event.BodyBytes = nil
	return event
}

func benchServer() map[string]*clientv1.ServerFrame {
	heartbeat, connected, receipt := &clientv1.Heartbeat{}, &clientv1.Connected{ConnectionId: "c1234", UserId: "alice", HeartbeatMs: 30000}, &conversationv1.Receipt{
		ConversationId: chatEvent().GetConversationId(), Members: 12, Version: 1795000000000000,
	}
	for i := range uint64(20) {
		id := fmt.Sprintf("g0123456789abcdefghijkl%04d", i)
		heartbeat.Heads = append(heartbeat.Heads, &clientv1.Position{ConversationId: id, Seq: 12345 + i})
		connected.Conversations = append(connected.Conversations, &clientv1.Conversation{
			ConversationId: id, Kind: conversationv1.Kind_KIND_GROUP, Name: "Some name", Head: 99 + i, JoinedSeq: 1, Members: 12,
			Cursor: &conversationv1.Cursor{UserId: "alice", DeliveredSeq: 90, DeliveredTimeMs: 1795000000000, ReadSeq: 80, ReadTimeMs: 1795000000000},
		})
	}
	for i := range uint64(4) {
		receipt.Delivered = append(receipt.Delivered, &conversationv1.Step{Seq: 1000 - i, Members: uint32(i)})
		receipt.Read = append(receipt.Read, &conversationv1.Step{Seq: 900 - i, Members: uint32(i)})
	}
	return map[string]*clientv1.ServerFrame{
		"Event":     {Message: &clientv1.ServerFrame_Event{Event: benchEvent()}},
		"Page":      benchPage(),
		"Heartbeat": {Message: &clientv1.ServerFrame_Heartbeat{Heartbeat: heartbeat}},
		"Connected": {Id: 1, Message: &clientv1.ServerFrame_Connected{Connected: connected}},
		"Receipt":   {Message: &clientv1.ServerFrame_Receipt{Receipt: receipt}},
		"Outcome": {Id: 12345, Message: &clientv1.ServerFrame_Outcome{Outcome: &conversationv1.Outcome{
			ConversationId: chatEvent().GetConversationId(), CommandId: chatEvent().GetCommandId(), Seq: 7, TimeMs: 1795000000000,
		}}},
	}
}

func benchClient() map[string]*clientv1.ClientFrame {
	ack, connect := &clientv1.Ack{}, &clientv1.Connect{Token: "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl", DeviceId: "phone", Accepted: true}
	for i := range uint64(20) {
		id := fmt.Sprintf("g0123456789abcdefghijkl%04d", i)
		ack.Positions = append(ack.Positions, &clientv1.AckPosition{ConversationId: id, Delivered: 12345 + i, Read: 12345})
		connect.Resume = append(connect.Resume, &clientv1.Position{ConversationId: id, Seq: 12345 + i})
	}
	return map[string]*clientv1.ClientFrame{
		"Submit":  submitFrame(),
		"Ack":     {Request: &clientv1.ClientFrame_Ack{Ack: ack}},
		"Connect": {Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: connect}},
		"Read":    {Id: 2, Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: chatEvent().GetConversationId(), After: 500, Limit: 50}}},
	}
}

func BenchmarkFrames(b *testing.B) {
	run := func(name string, fn func()) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fn()
			}
		})
	}
	buf := make([]byte, 0, 1<<17)
	for _, codec := range codecs() {
		for name, f := range benchServer() {
			data := frame.AppendServer(nil, codec, f)
			run(fmt.Sprintf("%s/append/%s", codec, name), func() { frame.AppendServer(buf, codec, f) })
			run(fmt.Sprintf("%s/decode/%s", codec, name), func() {
				_ = frame.DecodeServer(codec, data, func(*clientv1.ServerFrame) error { return nil })
			})
		}
		for name, f := range benchClient() {
			data := frame.AppendClient(nil, codec, f)
			run(fmt.Sprintf("%s/append/%s", codec, name), func() { frame.AppendClient(buf, codec, f) })
			run(fmt.Sprintf("%s/decode/%s", codec, name), func() {
				_ = frame.DecodeClient(codec, data, func(*clientv1.ClientFrame) error { return nil })
			})
		}
	}
}

// Frames that a gateway encodes from stored events.
func BenchmarkStored(b *testing.B) {
	event, page := chatEvent(), &frame.Page{Head: 123456, More: true, Hidden: []*conversationv1.Range{{First: 1, Last: 2}}}
	for range 50 {
		page.Events = append(page.Events, chatEvent())
	}
	buf := make([]byte, 0, 1<<17)
	for _, codec := range codecs() {
		b.Run(codec.String()+"/Event", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				frame.AppendEvent(buf, codec, event, "")
			}
		})
		b.Run(codec.String()+"/Page", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				frame.AppendPage(buf, codec, 7, page)
			}
		})
	}
}
