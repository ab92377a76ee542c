package statuspage

import (
	"context"
	"sync"
	"time"
)

const (
	// MaxRows is how many rows a Source should return at most.
	MaxRows = 100
	// tableTimeout limits the time of one table.
	tableTimeout = 3 * time.Second
)

// Table is text for people. It is shown as text whatever it contains.
type Table struct {
	// Title is unique on a page. A table without one is not shown.
	Title string `json:"title"`
	// Summary says in a few words what the table says: "12 connected", "none".
	Summary string `json:"summary,omitempty"`
	// Attention says what an operator should look at now. It is shown at the top of the page. Empty for nothing.
	Attention string     `json:"attention,omitempty"`
	Columns   []string   `json:"columns"`
	Rows      [][]string `json:"rows"`
	// Marked are the indexes of the rows that Attention is about.
	Marked []int `json:"marked,omitempty"`
	// Note stands below the rows.
	Note string `json:"note,omitempty"`
}

// Source returns a table when the page is requested. It must return when its context ends. With an error it still returns the
// title, and the page shows the error in the table's place.
type Source func(ctx context.Context) (Table, error)

// tables asks all sources side by side.
func tables(ctx context.Context, sources []Source) []Table {
	ctx, cancel := context.WithTimeout(ctx, tableTimeout)
	defer cancel()
	answers := make([]Table, len(sources))
	var asking sync.WaitGroup
	for i, source := range sources {
		asking.Go(func() {
			table, err := source(ctx)
			if err != nil {
				table.Summary, table.Note = "could not be read", err.Error()
			}
			if table.Columns == nil {
				table.Columns = []string{}
			}
			if table.Rows == nil {
				table.Rows = [][]string{} // JSON: an empty list, not null
			}
			answers[i] = table
		})
	}
	asking.Wait()
	return answers
}
