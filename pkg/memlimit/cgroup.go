package memlimit

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// unlimited is the lowest value of cgroup version 1 that means "no limit". The kernel rounds the highest possible limit
// down to a page.
const unlimited = math.MaxInt64 >> 16 << 16

// hierarchy is a mounted cgroup file system that can limit memory.
type hierarchy struct {
	version int
	// root is the cgroup that is visible at the mount point.
	root, point string
}

// files returns the limit files in a cgroup's directory. Above memory.high the kernel slows the processes down. Above the
// other limits it kills them.
func (h hierarchy) files() []string {
	if h.version == 1 {
		return []string{"memory.limit_in_bytes"}
	}
	return []string{"memory.max", "memory.high"}
}

// lowest returns the lowest memory limit of the process's cgroup and its ancestors in bytes, or math.MaxInt64 if there is
// no limit. root is the root of the file system. A limit that cannot be read counts as no limit.
func lowest(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	for _, h := range hierarchies(root) {
		group, found := membership(root, h.version)
		if !found {
			continue
		}
		for dir := h.directory(group); ; dir = path.Dir(dir) {
			for _, name := range h.files() {
				limit = min(limit, read(root, path.Join(dir, name)))
			}
			if dir == h.point || len(dir) <= 1 {
				break
			}
		}
	}
	return limit
}

// directory returns the directory of a cgroup. A cgroup outside the mount's root is not visible. For such a cgroup it
// returns the mount point, which shows the nearest visible cgroup.
func (h hierarchy) directory(group string) string {
	inside := strings.TrimPrefix(group, strings.TrimSuffix(h.root, "/"))
	if len(inside) == len(group) && h.root != "/" || strings.HasPrefix(inside, "/..") {
		return h.point
	}
	return path.Join(h.point, inside)
}

// hierarchies lists the mounted cgroup file systems of the process. A line of mountinfo reads
//
//	36 35 0:31 root point options optional… - type source superoptions
func hierarchies(root fs.FS) (list []hierarchy) {
	for _, line := range lines(root, "proc/self/mountinfo") {
		mount, filesystem, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(mount), strings.Fields(filesystem)
		if len(fields) < 5 || len(kind) < 3 {
			continue
		}
		switch {
		case kind[0] == "cgroup2":
			list = append(list, hierarchy{2, fields[3], fields[4]})
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			list = append(list, hierarchy{1, fields[3], fields[4]})
		}
	}
	return list
}

// membership returns the cgroup of the process. A line of /proc/self/cgroup reads number:controllers:cgroup. Version 2
// has number 0 and no controllers.
func membership(root fs.FS, version int) (group string, found bool) {
	for _, line := range lines(root, "proc/self/cgroup") {
		fields := strings.SplitN(line, ":", 3)
		if len(fields) < 3 {
			continue
		}
		if version == 2 && fields[0] == "0" && fields[1] == "" || version == 1 && slices.Contains(strings.Split(fields[1], ","), "memory") {
			return fields[2], true
		}
	}
	return "", false
}

// read reads a limit. It returns math.MaxInt64 if there is no limit.
func read(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, strings.TrimPrefix(name, "/"))
	if err != nil {
		return math.MaxInt64
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number
	if err != nil || limit <= 0 || limit >= unlimited {
		return math.MaxInt64
	}
	return limit
}

func lines(root fs.FS, name string) []string {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\n")
}
