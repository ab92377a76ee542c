package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/statuspage"
)

// newestLetters is the number of dead letters that the status page lists.
const newestLetters = 5

// PartitionTable lists every partition of the installation with its owner.
func (s *Server) PartitionTable() statuspage.Source {
	return func(ctx context.Context) (statuspage.Table, error) {
		answer, err := s.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
		if err != nil {
			return statuspage.Table{Title: partitionsTitle}, err
		}
		return partitionTable(answer), nil
	}
}

const partitionsTitle = "Partitions"

// partitionTable marks the partitions that are not working and will not recover by themselves. A partition that is
// starting is not marked.
func partitionTable(answer *adminv1.ListPartitionsResponse) statuspage.Table {
	table := statuspage.Table{Title: partitionsTitle, Columns: []string{"partition", "owner", "state", "waiting", "watermark", "moving to"}}
	running := 0
	var ownerless, troubled []string
	for i, p := range answer.GetPartitions() {
		number := strconv.FormatUint(uint64(p.GetPartition()), 10)
		switch state := p.GetState(); {
		case state == stateRunning:
			running++
		case state == stateNoOwner:
			ownerless = append(ownerless, number)
			table.Marked = append(table.Marked, i)
		case state != stateStarting:
			troubled = append(troubled, number+" is "+state)
			table.Marked = append(table.Marked, i)
		}
		table.Rows = append(table.Rows, []string{
			number, cmp.Or(p.GetOwner(), "nobody"), p.GetState(), strconv.FormatUint(p.GetLag(), 10), strconv.FormatUint(p.GetWatermark(), 10), p.GetWanted(),
		})
	}
	table.Summary = fmt.Sprintf("%d of %d running on %s", running, len(answer.GetPartitions()), owners(answer))
	var attention []string
	if len(ownerless) > 0 {
		attention = append(attention, "no worker owns "+count(len(ownerless), "partition")+": "+listed(ownerless))
	}
	if len(troubled) > 0 {
		attention = append(attention, "partition "+listed(troubled))
	}
	for _, m := range answer.GetMissing() {
		attention = append(attention, fmt.Sprintf("%s %s did not answer: %s", m.GetService(), m.GetInstance(), m.GetReason()))
	}
	table.Attention = sentence(attention)
	return table
}

// owners lists the workers with their partitions. If there are many workers, it returns their number.
func owners(answer *adminv1.ListPartitionsResponse) string {
	const most = 3
	workers := answer.GetWorkers()
	if len(workers) == 0 || len(workers) > most {
		return count(len(workers), "worker")
	}
	owned := map[string]int{}
	for _, p := range answer.GetPartitions() {
		owned[p.GetOwner()]++
	}
	named := make([]string, len(workers))
	for i, worker := range workers {
		named[i] = fmt.Sprintf("%s (%d)", worker.GetWorker(), owned[worker.GetWorker()])
	}
	return strings.Join(named, ", ")
}

// DeadLetterTable counts the dead letters of the installation and shows the newest ones.
func (s *Server) DeadLetterTable() statuspage.Source {
	return func(ctx context.Context) (statuspage.Table, error) {
		page, err := s.History.ListDeadLetters(ctx, &historyv1.ListDeadLettersRequest{Limit: rpc.MaxItems})
		if err != nil {
			return statuspage.Table{Title: deadLettersTitle}, err
		}
		return deadLetterTable(page.GetDeadLetters(), page.GetMore()), nil
	}
}

const deadLettersTitle = "Dead letters"

func deadLetterTable(letters []*historyv1.StoredDeadLetter, more bool) statuspage.Table {
	table := statuspage.Table{Title: deadLettersTitle, Summary: "none", Columns: []string{"put aside", "partition", "reason", "dead letter"}}
	if len(letters) == 0 {
		return table
	}
	// The store lists dead letters by partition, so with more than one page the newest may be on a later page.
	newest := slices.SortedStableFunc(slices.Values(letters), func(x, y *historyv1.StoredDeadLetter) int { return cmp.Compare(y.GetTimeMs(), x.GetTimeMs()) })
	for _, letter := range newest[:min(newestLetters, len(newest))] {
		when := "unknown"
		if letter.GetTimeMs() != 0 {
			when = time.UnixMilli(letter.GetTimeMs()).UTC().Format("2006-01-02 15:04:05") + " UTC"
		}
		table.Rows = append(table.Rows, []string{when, strconv.FormatUint(uint64(letter.GetPartition()), 10), letter.GetLetter().GetReason(), letter.GetDeadLetterId()})
	}
	table.Summary = strconv.Itoa(len(letters))
	shown, all := "newest", count(len(letters), "dead letter")
	if more {
		table.Summary, shown, all = "more than "+table.Summary, "newest of the first "+table.Summary, "more than "+all
	}
	table.Attention = sentence([]string{all + ": messages that somebody sent and nobody got. See runnel admin dead-letters list"})
	if len(letters) > newestLetters {
		table.Note = fmt.Sprintf("These are the %d %s.", newestLetters, shown)
	}
	return table
}

// count returns a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// listed joins the first few items.
func listed(items []string) string {
	const most = 8
	if len(items) > most {
		return strings.Join(items[:most], ", ") + fmt.Sprintf(" and %d more", len(items)-most)
	}
	return strings.Join(items, ", ")
}

// sentence joins parts to one text that begins with a capital letter; empty without parts.
func sentence(parts []string) string {
	text := strings.Join(parts, "; ")
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
