// The modules whose files define the kinds of the Prometheus operator and of cert-manager. Nothing of them is built.
module github.com/runnelhq/runnel/deploy/k8stest/crds

go 1.26.7

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
)
