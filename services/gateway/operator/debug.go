package operator

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Debug returns the internal state of one gateway as JSON. It is for the admin port, which authenticates callers; it changes
// nothing.
//
//	GET /debug/connections?user=&after=&limit=   connections, by id
//	GET /debug/connections/{id}                  one connection, with its position in its conversations
//	GET /debug/users/{id}                        all connections of a user, and the revocation of their tokens
//	GET /debug/conversations/{id}                the state of a conversation on this gateway
func (s *Server) Debug() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/connections", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		limit, err := strconv.ParseUint(orZero(query.Get("limit")), 10, 32)
		if err != nil {
			answer(w, nil, status.Error(codes.InvalidArgument, "limit: is not a number"))
			return
		}
		list, err := s.ListConnections(r.Context(), &gatewayv1.ListConnectionsRequest{
			UserId: query.Get("user"), After: query.Get("after"), Limit: uint32(limit),
		})
		answer(w, list, err)
	})
	mux.HandleFunc("GET /debug/connections/{id}", func(w http.ResponseWriter, r *http.Request) {
		one, err := s.GetConnection(r.Context(), &gatewayv1.GetConnectionRequest{ConnectionId: r.PathValue("id")})
		answer(w, one, err)
	})
	mux.HandleFunc("GET /debug/users/{id}", func(w http.ResponseWriter, r *http.Request) {
		shown, err := s.showUser(r.PathValue("id"))
		answer(w, shown, err)
	})
	mux.HandleFunc("GET /debug/conversations/{id}", func(w http.ResponseWriter, r *http.Request) {
		shown, err := s.showRoom(ids.Conversation(r.PathValue("id")))
		answer(w, shown, err)
	})
	return mux
}

func orZero(number string) string {
	if number == "" {
		return "0"
	}
	return number
}

// message makes encoding/json write a generated message in protojson's form.
type message struct{ proto.Message }

// MarshalJSON implements json.Marshaler.
func (m message) MarshalJSON() ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m.Message)
}

// answer writes a value, or an error with the status for its code.
func answer(w http.ResponseWriter, value any, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		switch status.Code(err) {
		case codes.NotFound:
			w.WriteHeader(http.StatusNotFound)
		case codes.InvalidArgument:
			w.WriteHeader(http.StatusBadRequest)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
		value = map[string]string{"error": status.Convert(err).Message()}
	} else if m, is := value.(proto.Message); is {
		value = message{m}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value) //nolint:errchkjson // fails only when the caller went away
}

type shownUser struct {
	User ids.User `json:"user"`
	// RevokedBeforeMs is the latest value that this gateway has received; the store has the authoritative one.
	RevokedBeforeMs int64     `json:"revoked_before_ms,omitempty"`
	Connections     []message `json:"connections"`
}

func (s *Server) showUser(typed string) (*shownUser, error) {
	userID, err := conversation.ParseUser(typed)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "is not a user id")
	}
	sessions := s.deps.Sessions.List(userID)
	if len(sessions) == 0 {
		return nil, status.Error(codes.NotFound, "the user has no connection to this gateway")
	}
	shown := &shownUser{User: userID, RevokedBeforeMs: s.deps.Sessions.RevokedBefore(userID)}
	for _, described := range sessions {
		shown.Connections = append(shown.Connections, message{described.Connection})
	}
	return shown, nil
}

type shownRoom struct {
	Conversation ids.Conversation `json:"conversation"`
	Ready        bool             `json:"ready"`
	// Head is the newest event that the room has taken. Seen is the newest event known to exist: it is above Head while
	// events are missing.
	Head ids.Seq `json:"head"`
	Seen ids.Seq `json:"seen"`
	// Catching means that missing events are being read from the history service.
	Catching bool `json:"catching"`
	// RecentFrom is the oldest event in memory, 0 when there is none.
	RecentFrom  ids.Seq `json:"recent_from,omitempty"`
	Recent      int     `json:"recent"`
	RecentBytes int     `json:"recent_bytes"`
	// Subscriptions are the connections that are subscribed to the conversation.
	Subscriptions []shownSubscription `json:"subscriptions"`
	// MoreSubscriptions is the number of subscriptions that are not listed.
	MoreSubscriptions int `json:"more_subscriptions,omitempty"`
}

type shownSubscription struct {
	Connection ids.Connection `json:"connection"`
	User       ids.User       `json:"user"`
	From       ids.Seq        `json:"from"`
	Until      ids.Seq        `json:"until,omitempty"`
	Sent       ids.Seq        `json:"sent"`
	Acked      ids.Seq        `json:"acknowledged"`
	Read       ids.Seq        `json:"read"`
	Behind     bool           `json:"behind"`
	Retries    int            `json:"retries"`
}

func (s *Server) showRoom(conversationID ids.Conversation) (*shownRoom, error) {
	if !conversation.ValidID(string(conversationID)) {
		return nil, status.Error(codes.InvalidArgument, "is not a conversation id")
	}
	r := s.deps.Rooms.Room(conversationID)
	if r == nil {
		return nil, status.Error(codes.NotFound, "no connection to this gateway is subscribed to this conversation")
	}
	held := r.Show(maxStandings)
	shown := &shownRoom{
		Conversation: held.ConversationID, Ready: held.Ready, Head: held.Head, Seen: held.Seen, Catching: held.Catching,
		RecentFrom: held.RecentFrom, Recent: held.Recent, RecentBytes: held.RecentBytes,
		Subscriptions: []shownSubscription{}, MoreSubscriptions: held.More,
	}
	for _, one := range held.Subscriptions {
		shown.Subscriptions = append(shown.Subscriptions, shownSubscription{
			Connection: one.ConnectionID, User: one.User, From: one.From, Until: one.Until, Sent: one.Sent, Acked: one.Acked,
			Read: one.Read, Behind: one.Behind, Retries: one.Tries,
		})
	}
	slices.SortFunc(shown.Subscriptions, func(a, b shownSubscription) int { return cmp.Compare(a.Connection, b.Connection) })
	return shown, nil
}
