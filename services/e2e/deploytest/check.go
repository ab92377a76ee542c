package deploytest

import (
	"fmt"
)

// Check compares the parts of an installation with each other, or with the behaviour of the programs, and records every
// difference.
type Check struct {
	Name string
	run  func(*inspection)
}

// Checks returns all checks that need no running programs.
func Checks() []Check {
	return []Check{
		{"names", checkNames},
		{"selectors", checkSelectors},
		{"spread", checkSpread},
		{"ports", checkPorts},
		{"probes", checkProbes},
		{"environment", checkEnvironment},
		{"files", checkFiles},
		{"secrets", checkSecrets},
		{"security", checkSecurity},
		{"memory", checkMemory},
		{"rollout", checkRollout},
		{"grace", checkGrace},
		{"autoscaling", checkAutoscaling},
		{"network", checkNetwork},
		{"nats", checkNATS},
		{"certificates", checkCertificates},
		{"monitoring", checkMonitoring},
		{"test", checkTest},
	}
}

// Facts contains the data with which an installation is compared.
type Facts struct {
	Programs map[string]*Program
	// Answers returns the HTTP status for a path without a token, on a component's admin server or on NATS's monitoring
	// port.
	Answers func(component, path string) int
	// Metrics returns the names of the metrics that a component exports.
	Metrics func(component string) map[string]bool
	// Secrets returns the Secrets that the installation requires.
	Secrets Secrets
	// Scratch makes an empty directory.
	Scratch func() string
}

// Inspect runs all checks. Each finding begins with the check's name.
func Inspect(o *Objects, facts Facts) []error {
	var found []error
	asked := map[*Workload]map[string]string{}
	for _, check := range Checks() {
		in := &inspection{Objects: o, Facts: facts, check: check.Name, asked: asked}
		check.run(in)
		found = append(found, in.found...)
	}
	return found
}

// inspection is the state of one run of a check.
type inspection struct {
	*Objects
	Facts

	check string
	asked map[*Workload]map[string]string // settings by workload, shared by all checks of one Inspect
	found []error
}

func (in *inspection) failf(format string, args ...any) {
	in.found = append(in.found, fmt.Errorf(in.check+": "+format, args...))
}

// services returns the workloads that run Runnel's own programs.
func (in *inspection) services() []*Workload {
	var own []*Workload
	for _, w := range in.Workloads {
		if in.Programs[w.Program()] != nil {
			own = append(own, w)
		}
	}
	return own
}

// settings returns the settings with which a workload's program would run; nil if the program refuses them, which
// checkEnvironment reports.
func (in *inspection) settings(w *Workload) map[string]string {
	settings, known := in.asked[w]
	if !known {
		environment, _ := w.Environment(in.Scratch(), in.Secrets)
		settings, _ = in.Programs[w.Program()].Settings(environment)
		in.asked[w] = settings
	}
	return settings
}
