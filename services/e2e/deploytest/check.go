package deploytest

import (
	"fmt"
)

// Check compares the parts of an installation with each other, or with the programs' actual behaviour, and returns
// everything that is wrong.
type Check struct {
	Name string
	run  func(*inspection)
}

// Checks are all checks that need no running programs.
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

// Facts are the data that an installation is compared with.
type Facts struct {
	Programs map[string]*Program
	// Answers returns the status with which a path of a component's admin server, or of NATS' monitoring port, answers
	// without a token.
	Answers func(component, path string) int
	// Metrics are the names that a component exports.
	Metrics func(component string) map[string]bool
	// Secrets are the Secrets that the installation requires.
	Secrets Secrets
	// Scratch makes an empty directory.
	Scratch func() string
}

// Inspect runs all checks; the findings begin with the check's name.
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

// inspection is one run of a check.
type inspection struct {
	*Objects
	Facts

	check string
	asked map[*Workload]map[string]string // settings, for all checks of one Inspect
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

// settings returns the settings with which a workload's program would run. checkEnvironment reports settings that it
// refuses; here the result is nil then.
func (in *inspection) settings(w *Workload) map[string]string {
	settings, known := in.asked[w]
	if !known {
		environment, _ := w.Environment(in.Scratch(), in.Secrets)
		settings, _ = in.Programs[w.Program()].Settings(environment)
		in.asked[w] = settings
	}
	return settings
}
