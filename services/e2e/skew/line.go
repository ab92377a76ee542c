package skew

// Line is a line that skewclient prints: the outcome of a command, or an event.
type Line struct {
	// Committed is the seq of a committed command. Refused is the reason for refusing it.
	Committed uint64 `json:"committed,omitempty"`
	Refused   string `json:"refused,omitempty"`
	// Seq, Kind and Content describe an event. Known means that the client knows the event's action.
	Seq     uint64 `json:"seq,omitempty"`
	Kind    int32  `json:"kind,omitempty"`
	Content string `json:"content,omitempty"`
	Known   bool   `json:"known,omitempty"`
	// Broken is the error of a log that does not verify.
	Broken string `json:"broken,omitempty"`
}
