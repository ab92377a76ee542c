package sizing

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"time"
)

// Figures are what the benchmark measured with separate services. CPU is in µs.
type Figures struct {
	// Date, CPU, Cores and Commit say when, where and of what they were measured.
	Date   time.Time `json:"date"`
	CPU    string    `json:"cpu"`
	Cores  int       `json:"cores"`
	Commit string    `json:"commit"`
	// OtherCores is the number of processors that other programs used meanwhile. Above 0.1 the figures are too high.
	OtherCores float64 `json:"other_cores"`

	// CPU of each part for a message in a group of four connected members, everything included: acknowledgements, receipts, cursors.
	Gateway, NATS, Delivery, History, PostgreSQL float64
	// EachDelivery is the CPU of all parts for one delivery to a large room, acknowledgement included.
	EachDelivery float64
	// Connect is the CPU of all parts for a client that connects and resumes one conversation.
	Connect float64
	// ConnectionBytes is the memory of an idle connection in one conversation, ConversationBytes that of an idle conversation of four
	// members, on one gateway and in delivery together.
	ConnectionBytes, ConversationBytes float64
	// ClientBytes are sent to the clients of a group of four for a message. StreamBytes and StoreBytes are what a message of 128
	// characters takes in the stream (one copy) and in the database (indexes included).
	ClientBytes, StreamBytes, StoreBytes float64
}

//go:embed figures.json
var measured []byte

// Measured returns the figures that this build contains.
func Measured() (Figures, error) { return parse(measured) }

// parse reads a report of the benchmark.
func parse(report []byte) (Figures, error) {
	var r struct {
		Date    time.Time `json:"date"`
		Machine struct {
			CPU    string `json:"cpu"`
			Cores  int    `json:"cores"`
			Commit string `json:"commit"`
		} `json:"machine"`
		OtherCores float64 `json:"other_cores"`
		Figures    []struct {
			Mode   string  `json:"mode"`
			Key    string  `json:"key"`
			Metric string  `json:"metric"`
			Median float64 `json:"median"`
		} `json:"figures"`
	}
	if err := json.Unmarshal(report, &r); err != nil {
		return Figures{}, fmt.Errorf("read the figures of the benchmark: %w", err)
	}
	f := Figures{Date: r.Date, CPU: r.Machine.CPU, Cores: r.Machine.Cores, Commit: r.Machine.Commit, OtherCores: r.OtherCores}
	const kib, mib, idleGroups = 1 << 10, 1 << 20, 20_000
	for _, wanted := range []struct {
		to          *float64
		key, metric string
		factor      float64
	}{
		{&f.Gateway, "parts", "gateway cpu", 1},
		{&f.NATS, "parts", "nats cpu", 1},
		{&f.Delivery, "parts", "delivery cpu", 1},
		{&f.History, "parts", "history cpu", 1},
		{&f.PostgreSQL, "parts", "postgres cpu", 1},
		{&f.EachDelivery, "room", "cpu", 1},
		{&f.Connect, "idle", "cpu", 1},
		{&f.ConnectionBytes, "idle", "memory", kib},
		{&f.ConversationBytes, "idle groups", "memory", mib / float64(idleGroups)},
		{&f.ClientBytes, "parts", "client bytes", 1},
		{&f.StreamBytes, "parts", "stream bytes", 1},
		{&f.StoreBytes, "parts", "store bytes", 1},
	} {
		for _, figure := range r.Figures {
			if figure.Mode == "separate" && figure.Key == wanted.key && figure.Metric == wanted.metric {
				*wanted.to = figure.Median * wanted.factor
			}
		}
		if *wanted.to <= 0 {
			return f, fmt.Errorf("the figures of the benchmark lack %q, %q with separate services", wanted.key, wanted.metric)
		}
	}
	return f, nil
}
