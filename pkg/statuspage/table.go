package statuspage

import (
	"context"
	"sync"
	"time"
)

const (
	// MaxRows is the number of rows that a Source should return at most.
	MaxRows = 100
	// tableTimeout is the time limit for making one table.
	tableTimeout = 3 * time.Second
)

// Table contains text for people. The page shows it as plain text, whatever it contains.
type Table struct {
	// Title is unique on a page. A table without a title is not shown.
	Title string `json:"title"`
	// Summary summarises the table in a few words: "12 connected", "none".
	Summary string `json:"summary,omitempty"`
	// Attention states what an operator should look at now. It is shown at the top of the page. Empty if there is
	// nothing.
	Attention string     `json:"attention,omitempty"`
	Columns   []string   `json:"columns"`
	Rows      [][]string `json:"rows"`
	// Marked contains the indexes of the rows that Attention refers to.
	Marked []int `json:"marked,omitempty"`
	// Note is shown below the rows.
	Note string `json:"note,omitempty"`
}

// Source makes a table when the page is requested. It must return when its context ends. If it returns an error, it also
// returns the title; the page then shows the error instead of the table.
type Source func(ctx context.Context) (Table, error)

// tables runs all sources concurrently.
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
				table.Rows = [][]string{} // in JSON an empty list instead of null
			}
			answers[i] = table
		})
	}
	asking.Wait()
	return answers
}
