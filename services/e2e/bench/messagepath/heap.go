package messagepath

import (
	"runtime"
)

// objects are counts of allocations.
type objects struct{ count, bytes int64 }

// allocations are those of each stage, and of single functions.
type allocations struct {
	stages  [stages]objects
	details map[string]int
}

// profileEverything makes the heap profile count every allocation. It is called before the first measurement, and before the server
// starts.
func profileEverything() { runtime.MemProfileRate = 1 }

// allocated counts what is allocated while during runs.
func allocated(during func() error) (*allocations, error) {
	before := heapProfile()
	if err := during(); err != nil {
		return nil, err
	}
	a := &allocations{details: map[string]int{}}
	for stack, after := range heapProfile() {
		count, bytes := after.count-before[stack].count, after.bytes-before[stack].bytes
		if count == 0 {
			continue
		}
		by := place(functionsOf(stack))
		if by.stage == stageLoad {
			continue
		}
		a.stages[by.stage].count += count
		a.stages[by.stage].bytes += bytes
		a.details["allocate: "+by.function] += int(count)
	}
	return a, nil
}

// callStack is the call stack of an allocation, as the profile stores it.
type callStack [32]uintptr

// heapProfile returns all allocations so far, by call stack.
func heapProfile() map[callStack]objects {
	// The profile lags behind: an allocation counts after the second collection that follows it.
	for range 3 {
		runtime.GC()
	}
	n, _ := runtime.MemProfile(nil, true)
	var records []runtime.MemProfileRecord
	for fits := false; !fits; { // stacks may be added meanwhile
		records = make([]runtime.MemProfileRecord, n+n/4+50)
		n, fits = runtime.MemProfile(records, true)
	}
	records = records[:n]
	all := make(map[callStack]objects, len(records))
	for i := range records {
		sum := all[records[i].Stack0]
		all[records[i].Stack0] = objects{sum.count + records[i].AllocObjects, sum.bytes + records[i].AllocBytes}
	}
	return all
}

func functionsOf(stack callStack) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		n := 0
		for n < len(stack) && stack[n] != 0 {
			n++
		}
		frames := runtime.CallersFrames(stack[:n])
		for {
			f, more := frames.Next()
			if f.Function != "" && !yield(f.Function) {
				return
			}
			if !more {
				return
			}
		}
	}
}
