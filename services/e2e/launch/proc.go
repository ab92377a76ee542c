package launch

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticksPerSecond is the unit of CPU times in /proc. For programs, Linux has fixed it at 100.
const ticksPerSecond = 100

// family lists a process and its descendants, parents first.
func family(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pids[i]))
		for _, thread := range threads {
			list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pids[i], thread.Name()))
			for field := range strings.FieldsSeq(string(list)) {
				if child, err := strconv.Atoi(field); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}

// pauseFamily suspends a process and all its descendants, parents first, so that none of them starts another process
// meanwhile.
func pauseFamily(pid int) {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	for _, child := range family(pid)[1:] {
		_ = syscall.Kill(child, syscall.SIGSTOP)
	}
	// The signal is asynchronous: the process may answer until all its threads have stopped.
	for range 1000 {
		if !slices.ContainsFunc(family(pid), moves) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// moves reports whether a thread of a process still runs.
func moves(pid int) bool {
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return slices.ContainsFunc(threads, func(thread os.DirEntry) bool {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, thread.Name()))
		_, state, found := bytes.Cut(stat, []byte(") "))
		return found && len(state) > 0 && !strings.ContainsRune("TtZX", rune(state[0]))
	})
}

func resumeFamily(pid int) {
	pids := family(pid)
	for _, member := range slices.Backward(pids) {
		_ = syscall.Kill(member, syscall.SIGCONT)
	}
}

// usage sums the cost of a process and its descendants, including descendants that have ended and were waited for.
func usage(pid int) (Usage, error) {
	pids := family(pid)
	var total Usage
	for i, member := range pids {
		ticks, err := cpuTicks(member)
		if err != nil {
			if i == 0 {
				return Usage{}, err
			}
			continue // it has just ended; its parent's times include its times
		}
		total.CPU += time.Duration(ticks) * (time.Second / ticksPerSecond)
		if len(pids) == 1 {
			total.RSS += memory(member, "status", "VmRSS:")
		} else {
			total.RSS += memory(member, "smaps_rollup", "Pss:")
		}
	}
	return total, nil
}

// cpuTicks returns the user and system time of a process, and of its children that have ended and were waited for.
func cpuTicks(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the times of a process: %w", err)
	}
	// The process name is in parentheses and may contain any character. The state, field 3, follows the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, cstime = 14 - 3, 17 - 3
	if len(fields) <= cstime {
		return 0, fmt.Errorf("read the times of process %d: %q is not as expected", pid, stat)
	}
	var sum uint64
	for _, field := range fields[utime : cstime+1] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the times of process %d: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

// memory reads one line of a /proc file in kilobytes; 0 if the process has ended.
func memory(pid int, file, label string) int64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), label); found {
			kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}
