package telemetry

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const installationLabel = "installation"

// gatherer returns the metrics for scraping, with the label installation if it is configured.
func (t *Telemetry) gatherer() prometheus.Gatherer {
	if t.installation == "" {
		return t.Registry
	}
	return labelled{t.Registry, t.installation}
}

// labelled adds the label installation to every metric without it.
type labelled struct {
	prometheus.Gatherer

	installation string
}

// Gather implements prometheus.Gatherer.
func (l labelled) Gather() ([]*dto.MetricFamily, error) {
	families, err := l.Gatherer.Gather()
	name := installationLabel
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if slices.ContainsFunc(metric.GetLabel(), func(label *dto.LabelPair) bool { return label.GetName() == name }) {
				continue
			}
			// A new slice is made, because collectors share their slices between scrapes.
			labels := slices.Concat(metric.GetLabel(), []*dto.LabelPair{{Name: &name, Value: &l.installation}})
			slices.SortFunc(labels, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
			metric.Label = labels
		}
	}
	return families, err
}
