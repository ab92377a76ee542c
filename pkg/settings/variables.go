package settings

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// notOurs matches environment variables that begin like settings but are none. Kubernetes sets variables for each service
// of the namespace, and a service may be named runnel-gateway. RUNNEL_TEST_ is the prefix of test settings.
var notOurs = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$|^RUNNEL_TEST_`)

// sections are the sections of all programs. Several programs may share an environment, so each program ignores variables
// of sections that it does not have.
var sections = []string{"AUTH", "DELIVERY", "GATEWAY", "HISTORY", "NATS"}

// checkEnvironment returns an error for a variable that begins like a setting but is none: a setting with a typo must not
// silently keep its default.
func (s *sources) checkEnvironment() error {
	var unknown []string
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix+"_") || s.variables[name] || s.isForeign(name, value) {
			continue
		}
		unknown = append(unknown, name)
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	problem := "the environment variable " + unknown[0] + " is no setting"
	if near := nearest(unknown[0], slices.Sorted(maps.Keys(s.variables))); near != "" {
		problem += "; did you mean " + near + "?"
	}
	if more := unknown[1:]; len(more) > 0 {
		problem += fmt.Sprintf(" (and %s)", strings.Join(more, ", "))
	}
	return fmt.Errorf("%s", problem)
}

// isForeign reports whether a variable that this program does not know belongs to another program.
func (s *sources) isForeign(name, value string) bool {
	if notOurs.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://") {
		return true
	}
	for _, section := range sections {
		prefix := envPrefix + "_" + section + "_"
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		own := 0
		for variable := range s.variables {
			if strings.HasPrefix(variable, prefix) {
				own++
			}
		}
		if own > 1 { // with a single setting of a section, such as the number of partitions, a program does not count as having the section
			return false
		}
		near := nearest(name, slices.Sorted(maps.Keys(s.variables)))
		return near == "" || distance(name, near) > 2
	}
	return false
}

// nearest returns the name that is most similar to a wrong name; empty if none is similar.
func nearest(wrong string, names []string) string {
	best, least := "", len(wrong)/3+1
	for _, name := range names {
		if d := distance(wrong, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance returns the number of letters to add, remove or replace to turn one name into another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
