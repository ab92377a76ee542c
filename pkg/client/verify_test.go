package client_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// add appends an event of a kind that this build does not know. No command can be applied afterwards, because the state
// after such an event cannot be computed.
func (h *history) add(kind conversationv1.EventKind, body []byte, change ...func(*conversationv1.Event)) {
	event := &conversationv1.Event{
		ConversationId: h.id, Seq: h.head() + 1, TimeMs: 1, Sender: "bob", CommandId: uuid.Must(uuid.NewV7()).String(),
		Kind: kind, Body: body, Salt: make([]byte, chain.SaltSize), PrevHash: h.events[h.head()-1].GetHash(),
	}
	chain.Seal(event)
	for _, change := range change {
		change(event)
	}
	h.events = append(h.events, event)
}

func encoded(body *conversationv1.Body) []byte {
	data, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err)
	}
	return data
}

// newerLog returns a log with an event of each form at a fixed seq.
func newerLog() *history {
	h := newHistory(2)
	h.add(2, encoded(text("plain")))                                                                  // 3
	h.add(99, protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte{8, 1})) // 4: an unknown kind
	beside := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 7)
	h.add(2, append(encoded(text("with a new field")), beside...)) // 5
	h.add(2, encoded(text("gone")), chain.Erase)                   // 6
	h.add(2, encoded(text("hashed in another way")), func(event *conversationv1.Event) {
		event.Format, event.Hash = chain.Format+1, []byte("made in another way")
	}) // 7
	h.add(2, encoded(text("another one")), func(event *conversationv1.Event) {
		event.Format, event.Hash, event.HeaderExtra = chain.Format+1, []byte("and the last"), []byte("extra")
	}) // 8
	return h
}

func TestAProgramLearnsWhatIsKnownOfEachEvent(t *testing.T) {
	want := []chain.Content{
		chain.Verified, chain.Verified, chain.Verified, chain.Verified, chain.Verified, chain.Erased, chain.NotChecked, chain.NotChecked,
	}
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON, frame.JSONWithBytes} {
		t.Run(codec.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, h := newGateway(), newerLog()
				c, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.Codec = codec })
				l, connect := g.accept(t, connected(h.info()))
				require.Equal(t, codec != frame.Proto, connect.GetBodyBytes())
				for seq := range h.head() {
					l.send(h.push(seq + 1))
				}
				l.silent(t)
				require.Empty(t, v.broken)
				require.Equal(t, upTo(1, 8), v.seqs(h.id))
				for i, event := range v.events[h.id] {
					require.Equal(t, want[i], event.Content, event.GetSeq())
				}
				require.Equal(t, "with a new field", v.events[h.id][4].GetBody().GetMessage().GetText())
				require.NotNil(t, v.events[h.id][3].GetBody())
				require.Nil(t, v.events[h.id][3].GetBody().GetAction())
				require.Nil(t, v.events[h.id][5].GetBody())

				for _, backward := range []bool{false, true} {
					for _, event := range readAll(t, c, l, h, backward).Events {
						require.Equal(t, want[event.GetSeq()-1], event.Content, event.GetSeq())
					}
				}
			})
		})
	}
}

// readAll reads the whole log as one page.
func readAll(t *testing.T, c *client.Client, l *link, h *history, backward bool) (page *client.Page) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		var err error
		if backward {
			page, err = c.ReadBefore(t.Context(), h.id, 0, 0)
		} else {
			page, err = c.ReadAfter(t.Context(), h.id, 0, 0)
		}
		done <- err
	}()
	f := l.recv(t)
	events := sent(h.events...)
	if backward {
		slices.Reverse(events)
	}
	l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{Events: events, Head: h.head()}}})
	require.NoError(t, <-done)
	require.Len(t, page.Events, len(events))
	return page
}

func TestWhatAServerTakesAwayOrChangesIsTampering(t *testing.T) {
	for name, spoil := range map[string]func(*clientv1.Event){
		"body {}":       func(event *clientv1.Event) { event.Body, event.BodyBytes = &conversationv1.Body{}, nil },
		"no body":       func(event *clientv1.Event) { event.Body, event.BodyBytes = nil, nil },
		"no commitment": func(event *clientv1.Event) { event.Commitment = nil },
		"no commitment and nothing else": func(event *clientv1.Event) {
			event.Body, event.BodyBytes, event.Salt, event.Commitment = nil, nil, nil, nil
		},
		"no salt":         func(event *clientv1.Event) { event.Salt = nil },
		"another kind":    func(event *clientv1.Event) { event.Kind = 3 },
		"another sender":  func(event *clientv1.Event) { event.Sender = "carol" },
		"another time":    func(event *clientv1.Event) { event.TimeMs++ },
		"a target":        func(event *clientv1.Event) { event.HeaderExtra = []byte{1} },
		"an older format": func(event *clientv1.Event) { event.Format = 1 },
		"a field more":    func(event *clientv1.Event) { event.BodyBytes = append(event.GetBodyBytes(), 0xc0, 0x3e, 7) },
	} {
		for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
			t.Run(name+" "+codec.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g, h := newGateway(), newHistory(3)
					_, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.Codec = codec })
					l, _ := g.accept(t, connected(h.info()))
					l.send(h.push(1))
					bad := h.push(2)
					spoil(bad.GetEvent())
					l.send(bad)
					page := h.page(l.recv(t))
					spoil(page.GetPage().GetEvents()[0])
					l.send(page)
					l.send(h.page(l.recv(t))) // the event with which the test has tampered
					l.silent(t)
					require.Equal(t, upTo(1, 1), v.seqs(h.id))
					require.Len(t, v.broken, 1)
					var broken *chain.Broken
					require.ErrorAs(t, v.broken[0], &broken)
					require.Equal(t, ids.Seq(2), broken.Seq)
				})
			})
		}
	}
}

// An event whose kind cannot be erased has its body and salt. A server that takes them away is noticed, although the hash still fits.
func TestAnErasedEventOfStructureIsTampering(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(codec.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, h := newGateway(), newHistory(1)
				added := encoded(&conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"carol"}}}})
				h.add(conversationv1.EventKind_EVENT_KIND_MEMBERS_ADDED, added, chain.Erase)
				_, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.Codec = codec })
				l, _ := g.accept(t, connected(h.info()))
				l.send(h.push(1), h.push(2))
				l.send(h.page(l.recv(t)))
				l.send(h.page(l.recv(t))) // the event that is tampered with
				l.silent(t)
				require.Equal(t, upTo(1, 1), v.seqs(h.id))
				require.Len(t, v.broken, 1)
				var broken *chain.Broken
				require.ErrorAs(t, v.broken[0], &broken)
				require.Equal(t, ids.Seq(2), broken.Seq)
			})
		})
	}
}

// JSON contains the body twice: decoded, and as the bytes that are hashed.
func TestWhatJSONSaysBesideTheBytesIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(2)
		h.add(2, encoded(text("gone")), chain.Erase)
		_, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.Codec = frame.JSON })
		l, _ := g.accept(t, connected(h.info()))
		lie := h.push(2)
		lie.GetEvent().Body = text("never said")
		forged := h.push(3)
		forged.GetEvent().Body = text("never erased")
		l.send(h.push(1), lie, forged)
		l.silent(t)
		require.Equal(t, "hello", v.events[h.id][1].GetBody().GetMessage().GetText())
		require.Equal(t, chain.Erased, v.events[h.id][2].Content)
		require.Nil(t, v.events[h.id][2].GetBody())
	})
}

func TestAClientThatDoesNotVerifyAsksForNoBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newHistory(2)
		h.add(2, encoded(text("gone")), chain.Erase)
		_, v := start(t, g, fromFirst, func(cfg *client.Config) { cfg.Codec, cfg.SkipVerify = frame.JSON, true })
		l, connect := g.accept(t, connected(h.info()))
		require.False(t, connect.GetBodyBytes())
		l.send(h.push(1), h.push(2), h.push(3))
		l.silent(t)
		require.Equal(t, chain.NotChecked, v.events[h.id][1].Content)
		require.Equal(t, "hello", v.events[h.id][1].GetBody().GetMessage().GetText())
		require.Equal(t, chain.Erased, v.events[h.id][2].Content)
	})
}

func TestAnUnknownFormatKeepsItsPlaceInTheChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, h := newGateway(), newerLog()
		_, v := start(t, g, fromFirst)
		l, _ := g.accept(t, connected(h.info()))
		for seq := range uint64(7) {
			l.send(h.push(seq + 1))
		}
		other := proto.CloneOf(h.push(8))
		other.GetEvent().PrevHash = []byte("another event")
		l.send(other)
		require.Equal(t, uint64(7), l.recv(t).GetRead().GetAfter(), "an event was replaced before it")
		synctest.Wait()
		require.Equal(t, upTo(1, 7), v.seqs(h.id))
	})
}

func decode(event *conversationv1.Event) (*conversationv1.Body, error) {
	return conversation.DecodeBody(event.GetBody())
}
