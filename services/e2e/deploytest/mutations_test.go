package deploytest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutation breaks one document of the production installation, like a typing error.
type mutation struct {
	object   string // "Kind/name"
	old, new string // the first occurrence is replaced
	finding  string // text of the finding
}

// strictness: errors that decoding itself detects.
var strictness = []mutation{
	{"Deployment/runnel-gateway", "  revisionHistoryLimit: 5", "  revisionHistoryLimits: 5", `unknown field "spec.revisionHistoryLimits"`},
	{"Deployment/runnel-gateway", "failureThreshold: 60", "failureTreshold: 60", "failureTreshold"},
	{"Deployment/runnel-history", "  revisionHistoryLimit: 5", "  revisionHistoryLimit: 5\n  revisionHistoryLimit: 6", "already set"},
	{"HorizontalPodAutoscaler/runnel-gateway", "minReplicas: 3", "minReplicas: two", "unmarshal"},
	{"HorizontalPodAutoscaler/runnel-gateway", "autoscaling/v2", "autoscaling/v3", "no kind"},
	{"PodDisruptionBudget/runnel-nats", "unhealthyPodEvictionPolicy", "unhealthyPodEviction", "unknown field"},
	{"ServiceMonitor/runnel", "interval:", "intervall:", "unknown field"},
	{"PrometheusRule/runnel", "expr:", "query:", "unknown field"},
	{"Certificate/runnel-gateway", "usages:", "usage:", "unknown field"},
	{"Namespace/runnel", "kind: Namespace", "kind: Secret", "does not belong among manifests"},
}

// mutations: at least one for each check.
var mutations = []mutation{
	{"ServiceAccount/runnel-nats", "name: runnel-nats", "name: nats", `names: runnel-nats runs as the ServiceAccount "runnel-nats", which is not there`},
	{"Service/runnel-history", "namespace: runnel", "namespace: other", "names: the objects must say one namespace"},
	{"Namespace/runnel", "name: runnel", "name: chat", "names: the Namespace chat"},
	{"Service/runnel-history", "name: runnel-history", "name: runnel-delivery", "names: Service/runnel-delivery is there twice"},
	{"Deployment/runnel-history", "runnel-history:0.1.0", "runnel-delivery:0.1.0", "names: history runs the program runnel-delivery"},

	{"Deployment/runnel-gateway", "app.kubernetes.io/component: gateway\n  template", "app.kubernetes.io/component: gate\n  template", "selectors: Deployment runnel-gateway selects the pods of 0 workloads"},
	{"Deployment/runnel-gateway", "      app.kubernetes.io/component: gateway\n  template", "  template", "selectors: Deployment runnel-gateway selects the pods of 4 workloads"},
	{"Service/runnel-history", "    app.kubernetes.io/component: history\n  ports", "    app.kubernetes.io/component: delivery\n  ports", "selectors: the Service runnel-history selects the pods of delivery"},
	{"PodDisruptionBudget/runnel-gateway", "      app.kubernetes.io/component: gateway", "", "selectors: the PodDisruptionBudget runnel-gateway selects the pods of 4"},
	{"PodDisruptionBudget/runnel-nats", "component: nats", "component: gateway", "selectors: runnel-nats has 0 disruption budgets"},
	{"NetworkPolicy/runnel-default-deny", "      app.kubernetes.io/instance: runnel\n  policyTypes", "      app.kubernetes.io/component: gateway\n  policyTypes", "selectors: the NetworkPolicy runnel-default-deny is for all pods"},
	{"NetworkPolicy/runnel-nats", "      app.kubernetes.io/component: nats\n  policyTypes", "      app.kubernetes.io/component: gateway\n  policyTypes", "selectors: the NetworkPolicy runnel-nats selects the pods of gateway"},
	{"StatefulSet/runnel-nats", "serviceName: runnel-nats", "serviceName: nats", `selectors: the StatefulSet runnel-nats names the Service "nats"`},

	{"Deployment/runnel-delivery", "whenUnsatisfiable: ScheduleAnyway\n          labelSelector:\n            matchLabels:\n              app.kubernetes.io/name: runnel\n              app.kubernetes.io/instance: runnel\n              app.kubernetes.io/component: delivery", "whenUnsatisfiable: ScheduleAnyway\n          labelSelector:\n            matchLabels:\n              app.kubernetes.io/name: runnel\n              app.kubernetes.io/instance: runnel\n              app.kubernetes.io/component: gateway", "spread: runnel-delivery spreads over topology.kubernetes.io/zone by a selector of other pods"},
	{"Deployment/runnel-delivery", "topologyKey: topology.kubernetes.io/zone", "topologyKey: topology.kubernetes.io/region", "spread: runnel-delivery is not spread over topology.kubernetes.io/zone"},
	{"StatefulSet/runnel-nats", "              matchLabels:\n                app.kubernetes.io/component: nats", "              matchLabels:\n                app.kubernetes.io/component: history", "spread: runnel-nats keeps away from pods that are not its own"},

	{"Deployment/runnel-gateway", "containerPort: 8080", "containerPort: 8081", "ports: runnel-gateway listens on the ports [8080 9000 9090] and declares [8081 9000 9090]"},
	{"Deployment/runnel-gateway", `name: RUNNEL_GATEWAY_LISTEN, value: ":8080"`, `name: RUNNEL_GATEWAY_LISTEN, value: "127.0.0.1:8080"`, "ports: runnel-gateway listens on 127.0.0.1:8080"},
	{"Deployment/runnel-gateway", `- {name: RUNNEL_GATEWAY_LISTEN, value: ":8080"}`, "", "ports: runnel-gateway listens on 127.0.0.1:8080"},
	{"Service/runnel-history", "targetPort: rpc", "targetPort: grpc", "ports: the Service runnel-history: the Service runnel-history leads to port grpc"},
	{"Service/runnel-history", "port: 9000, targetPort: rpc", "port: 9001, targetPort: rpc", "ports: the Service runnel-history: the headless Service runnel-history cannot lead from port 9001 to 9000"},
	{"Deployment/runnel-delivery", "dns:///runnel-history:9000", "dns:///runnel-store:9000", `ports: history-address of runnel-delivery is runnel-store:9000: there is no Service "runnel-store"`},
	{"Deployment/runnel-delivery", "dns:///runnel-history:9000", "dns:///runnel-history:9090", "ports: history-address of runnel-delivery leads to runnel-history on port 9090"},
	{"Deployment/runnel-gateway", "tls://runnel-nats-2.", "tls://runnel-nats-3.", "ports: nats.url of runnel-gateway is runnel-nats-3.runnel-nats:4222: runnel-nats has no pod runnel-nats-3"},
	{"Ingress/runnel-gateway", "name: runnel-gateway\n                port", "name: runnel-gate\n                port", "ports: the Ingress runnel-gateway leads to the Service runnel-gate"},
	{"Ingress/runnel-gateway", "name: runnel-gateway\n                port: {name: clients}", "name: runnel-gateway-internal\n                port: {name: admin}", "ports: the Ingress runnel-gateway leads to runnel-gateway on port 9090"},
	{"Ingress/runnel-gateway", "{name: clients}", "{name: http}", `ports: the Ingress runnel-gateway leads to port "http"`},

	{"Deployment/runnel-history", "path: /readyz", "path: /ready", "probes: the readiness probe of runnel-history asks for /ready, which answers 401"},
	{"Deployment/runnel-history", "livenessProbe:\n            failureThreshold: 6\n            httpGet:\n              path: /livez\n              port: admin", "livenessProbe:\n            failureThreshold: 6\n            httpGet:\n              path: /livez\n              port: rpc", "probes: the liveness probe of runnel-history asks the port rpc"},
	{"Deployment/runnel-history", "livenessProbe:\n            failureThreshold: 6\n            httpGet:\n              path: /livez", "livenessProbe:\n            failureThreshold: 6\n            httpGet:\n              path: /readyz", "probes: runnel-history is restarted when it is not ready"},
	{"Deployment/runnel-history", "startupProbe:\n            failureThreshold: 60\n            httpGet:\n              path: /livez\n              port: admin", "startupProbe:\n            failureThreshold: 60\n            tcpSocket:\n              port: admin", "probes: runnel-history has no startup probe over HTTP"},
	{"StatefulSet/runnel-nats", "path: /healthz\n", "path: /health\n", "probes: the startup probe of runnel-nats asks for /health, which answers 404"},

	{"Deployment/runnel-gateway", "RUNNEL_GATEWAY_DRAIN_RATE", "RUNNEL_GATEWAY_DRAINRATE", "environment: runnel-gateway sets RUNNEL_GATEWAY_DRAINRATE, which runnel-gateway does not know"},
	{"Deployment/runnel-history", "RUNNEL_HISTORY_CONNECTIONS", "RUNNEL_HISTORY_ADDRESS", "environment: runnel-history sets RUNNEL_HISTORY_ADDRESS, which runnel-history does not know"},
	{"Deployment/runnel-gateway", `value: "30s"`, `value: "30 seconds"`, "environment: runnel-gateway refuses its settings"},
	{"Deployment/runnel-delivery", `RUNNEL_NATS_PARTITIONS, value: "16"`, `RUNNEL_NATS_PARTITIONS, value: "32"`, "environment: "},
	{"Deployment/runnel-delivery", "RUNNEL_RPC_STOP_TIMEOUT", "RUNNEL_RPC_LISTEN", "environment: runnel-delivery sets RUNNEL_RPC_LISTEN twice"},
	{"Deployment/runnel-delivery", "enableServiceLinks: false", "enableServiceLinks: true", "environment: runnel-delivery would get variables"},
	{"StatefulSet/runnel-nats", "name: DELIVERY_NKEY", "name: GATEWAY_NKEY", "environment: runnel-nats sets GATEWAY_NKEY twice"},
	{"Deployment/runnel-gateway", "RUNNEL_GATEWAY_DRAIN_RATE", "RUNNEL_ADMIN_TOKEN", "environment: runnel-gateway sets RUNNEL_ADMIN_TOKEN, and a file for it too"},
	{"Deployment/runnel-gateway", `GOMEMLIMIT, value: "$(MEMORY_LIMIT_MIB)`, `GOMEMLIMIT, value: "$(MEMORY_MIB)`, "environment: runnel-gateway: GOMEMLIMIT refers to $(MEMORY_MIB)"},

	{"Deployment/runnel-gateway", "/etc/runnel/auth-hmac/hmac-secret", "/etc/runnel/auth-hmac/secret", "files: runnel-gateway sets RUNNEL_AUTH_HMAC_SECRET_FILE to /etc/runnel/auth-hmac/secret, and mounts no such file"},
	{"Deployment/runnel-gateway", "- {name: nats-user, mountPath: /etc/runnel/nats-user, readOnly: true}", "", "files: runnel-gateway sets RUNNEL_NATS_NKEY_SEED_FILE"},
	{"Deployment/runnel-gateway", "- {name: nats-user, mountPath: /etc/runnel/nats-user, readOnly: true}", "", "files: runnel-gateway does not mount its volume nats-user"},
	{"Deployment/runnel-gateway", "mountPath: /etc/runnel/rpc-tls, readOnly", "mountPath: /etc/runnel/rpc-tls, subPath: a, readOnly", "files: runnel-gateway mounts a part of rpc-tls"},
	{"Deployment/runnel-gateway", "{name: nats-tls, mountPath", "{name: nats-certs, mountPath", "files: runnel-gateway mounts nats-certs, which is no volume of it"},

	{"Deployment/runnel-history", "valueFrom:\n                secretKeyRef:\n                  key: url\n                  name: runnel-database", "value: postgres://runnel@db/runnel", "secrets: runnel-history writes the secret RUNNEL_HISTORY_DATABASE down"},
	{"Deployment/runnel-delivery", "dns:///runnel-history", "dns://user:password@runnel-history", "secrets: runnel-delivery writes the secret RUNNEL_HISTORY_ADDRESS down"},
	{"Deployment/runnel-delivery", "secretName: runnel-delivery-tls", "secretName: runnel-history-tls", "secrets: runnel-delivery and runnel-history share the Secret runnel-history-tls"},
	{"Deployment/runnel-delivery", "secretName: runnel-nats-delivery", "secretName: runnel-nats-gateway", "secrets: runnel-delivery and runnel-gateway share the Secret runnel-nats-gateway"},
	{"Deployment/runnel-delivery", "defaultMode: 288", "defaultMode: 292", "secrets: everybody in the pod of runnel-delivery may read the volume admin"},

	{"Deployment/runnel-gateway", "runAsNonRoot: true", "runAsNonRoot: false", "security: runnel-gateway: it may run as root"},
	{"Deployment/runnel-gateway", "runAsUser: 65532", "runAsUser: 0", "security: runnel-gateway: it may run as root"},
	{"Deployment/runnel-gateway", "fsGroup: 65532", "supplementalGroups: [65532]", "security: runnel-gateway: its user cannot read"},
	{"Deployment/runnel-gateway", "RuntimeDefault", "Unconfined", "security: runnel-gateway: seccomp is off"},
	{"Deployment/runnel-gateway", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "security: runnel-gateway: its root file system"},
	{"Deployment/runnel-gateway", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "security: runnel-gateway: it may gain privileges"},
	{"Deployment/runnel-gateway", "drop:\n              - ALL", "drop:\n              - ALL\n              add: [NET_BIND_SERVICE]", "security: runnel-gateway: it keeps capabilities"},
	{"Deployment/runnel-gateway", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "security: runnel-gateway: the pod gets a token"},
	{"ServiceAccount/runnel-gateway", "automountServiceAccountToken: false", "", "security: the ServiceAccount runnel-gateway gives its pods a token"},
	{"Deployment/runnel-gateway", "enableServiceLinks: false", "enableServiceLinks: false\n      hostNetwork: true", "security: runnel-gateway: it shares namespaces"},
	{"Deployment/runnel-gateway", "containerPort: 8080", "containerPort: 8080, hostPort: 8080", "security: runnel-gateway: it takes a port of the node"},
	{"StatefulSet/runnel-nats", "emptyDir: {medium: Memory, sizeLimit: 1Mi}", "hostPath: {path: /run}", "security: runnel-nats: it mounts the node's run"},

	{"Deployment/runnel-history", "limits:\n              memory: 512Mi", "limits: {}", "memory: runnel-history does not say"},
	{"Deployment/runnel-history", "cpu: 250m", "ephemeral-storage: 1Gi", "memory: runnel-history does not say"},
	{"Deployment/runnel-history", "$(MEMORY_LIMIT_MIB)000000", "$(MEMORY_LIMIT_MIB)MiB", `memory: GOMEMLIMIT of runnel-history is "512MiB"`},
	{"Deployment/runnel-history", "divisor: 1Mi", "divisor: 1Ki", "memory: GOMEMLIMIT of runnel-history"},
	{"Deployment/runnel-history", "memory: 256Mi", "memory: 2Gi", "memory: runnel-history requests more"},

	{"Deployment/runnel-gateway", "maxUnavailable: 0", "maxUnavailable: 1", "rollout: a rollout of runnel-gateway takes pods away"},
	{"PodDisruptionBudget/runnel-nats", "maxUnavailable: 1", "maxUnavailable: 2", "rollout: the PodDisruptionBudget runnel-nats must let one pod go"},
	{"PodDisruptionBudget/runnel-nats", "AlwaysAllow", "IfHealthyBudget", "rollout: the PodDisruptionBudget runnel-nats holds back"},

	{"Deployment/runnel-gateway", "terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 30", "grace: runnel-gateway is killed after 30s, and needs 5s + 30s + 10s"},
	{"Deployment/runnel-gateway", "terminationGracePeriodSeconds: 45", "", "grace: runnel-gateway is killed after 0s"},
	{"Deployment/runnel-gateway", `RUNNEL_GATEWAY_DRAIN, value: "30s"`, `RUNNEL_GATEWAY_DRAIN, value: "60s"`, "grace: runnel-gateway is killed after 45s, and needs 5s + 1m0s + 10s"},
	{"Deployment/runnel-delivery", `RUNNEL_RPC_STOP_TIMEOUT, value: "5s"`, `RUNNEL_RPC_STOP_TIMEOUT, value: "15s"`, "grace: runnel-delivery is killed after 20s"},
	{"Deployment/runnel-gateway", "sleep: {seconds: 5}", "sleep: {seconds: 1}", "grace: runnel-gateway goes before the nodes know"},
	{"StatefulSet/runnel-nats", "ldm=/run/nats/nats.pid", "ldm=/var/run/nats.pid", "grace: the preStop hook of runnel-nats must be"},
	{"StatefulSet/runnel-nats", "terminationGracePeriodSeconds: 60", "terminationGracePeriodSeconds: 30", "grace: runnel-nats is killed after 30s; it is a lame duck for 30s"},
	{"ConfigMap/runnel-nats", "lame_duck_duration: 30s", "lame_duck_duration: 50s", "grace: runnel-nats is killed after 1m0s; it is a lame duck for 50s"},

	{"HorizontalPodAutoscaler/runnel-gateway", "metrics:\n    - type: Pods\n      pods:\n        metric: {name: runnel_gateway_connections}\n        target: {type: AverageValue, averageValue: \"10000\"}\n    - type: Resource\n      resource:\n        name: cpu\n        target: {type: Utilization, averageUtilization: 60}", "metrics: []", "autoscaling: runnel-gateway does not say by what it scales"},
	{"HorizontalPodAutoscaler/runnel-gateway", "metric: {name: runnel_gateway_connections}", "metric: {name: runnel_gateway_connections_total}", "autoscaling: runnel-gateway scales by runnel_gateway_connections_total, which runnel-gateway does not export"},
	{"HorizontalPodAutoscaler/runnel-gateway", "kind: Deployment\n    name: runnel-gateway", "kind: Deployment\n    name: gateway", "autoscaling: runnel-gateway scales the Deployment gateway, which is not there"},
	{"HorizontalPodAutoscaler/runnel-gateway", "kind: Deployment\n    name: runnel-gateway", "kind: Deployment\n    name: gateway", "autoscaling: nothing says how many pods runnel-gateway has"},
	{"Deployment/runnel-gateway", "revisionHistoryLimit: 5", "replicas: 2", "autoscaling: runnel-gateway has a number of replicas"},
	{"HorizontalPodAutoscaler/runnel-gateway", `averageValue: "10000"`, `averageValue: "19000"`, "autoscaling: runnel-gateway aims at 19k connections of 20000"},
	{"HorizontalPodAutoscaler/runnel-gateway", "stabilizationWindowSeconds: 600", "stabilizationWindowSeconds: 60", "autoscaling: runnel-gateway shrinks at once"},
	{"HorizontalPodAutoscaler/runnel-gateway", "minReplicas: 3", "minReplicas: 1", "autoscaling: runnel-gateway must keep two pods"},

	{"NetworkPolicy/runnel-gateway", "kubernetes.io/metadata.name: ingress-nginx", "kubernetes.io/metadata.name: ingress", "network: clients reach the gateway"},
	{"NetworkPolicy/runnel-gateway", "ports: [{port: clients}]", "ports: []", "network: clients reach the admin port"},
	{"NetworkPolicy/runnel-history", "app.kubernetes.io/component: gateway\n", "app.kubernetes.io/component: nats\n", "network: gateways read history"},
	{"NetworkPolicy/runnel-history", "ports: [{port: rpc}]", "ports: [{port: grpc}]", "network: delivery appends to history"},
	{"NetworkPolicy/runnel-history", "port: 5432", "port: 5433", "network: history reaches PostgreSQL"},
	{"NetworkPolicy/runnel-delivery", "kubernetes.io/metadata.name: monitoring", "kubernetes.io/metadata.name: prometheus", "network: Prometheus scrapes delivery"},
	{"NetworkPolicy/runnel-nats", "ports: [{port: client}]", "ports: [{port: 4223}]", "network: delivery reaches NATS"},
	{"NetworkPolicy/runnel-nats", "ports: [{port: cluster}]", "ports: [{port: monitor}]", "network: NATS servers reach each other"},
	{"NetworkPolicy/runnel-dns", "kube-system", "kube-dns", "network: gateway asks for names"},

	{"ConfigMap/runnel-nats", "sync_interval: always", "sync_interval: 2m", "nats: a power failure loses"},
	{"ConfigMap/runnel-nats", "sync_interval: always", "sync_intervall: always", "nats: nats-server refuses the configuration"},
	{"ConfigMap/runnel-nats", "strict: true", "strict: false", "nats: JetStream is not strict"},
	{"ConfigMap/runnel-nats", "max_payload: 256KB", "max_payload: 128KB", "nats: max_payload is 131072"},
	{"ConfigMap/runnel-nats", "max_connections: 4096", "", "nats: max_connections is 0"},
	{"ConfigMap/runnel-nats", "max_ha_assets: 2000", "max_ha_assets: 20", "nats: max_ha_assets is 20"},
	{"ConfigMap/runnel-nats", "server_name: $POD_NAME", "server_name: nats", `nats: the server is called "nats"`},
	{"ConfigMap/runnel-nats", "0.0.0.0:4222", "0.0.0.0:4223", "nats: the server's client port is 4223"},
	{"ConfigMap/runnel-nats", "nats-route://runnel-nats-1.", "nats-route://runnel-nats-7.", "nats: the route runnel-nats-7.runnel-nats:6222 leads nowhere"},
	{"ConfigMap/runnel-nats", `"nats-route://runnel-nats-1.runnel-nats:6222"`, "", "nats: 3 servers have 2 routes"},
	{"ConfigMap/runnel-nats", "no_advertise: true", "no_advertise: false", "nats: clients would be sent to addresses"},
	{"ConfigMap/runnel-nats", "max_file_store: 8GB", "max_file_store: 3GB", "nats: streams may take 4294967296 bytes"},
	{"ConfigMap/runnel-nats", "store_dir: /data", "store_dir: /tmp", "nats: the volume data"},
	{"ConfigMap/runnel-nats", "include ./users.conf", "", "nats: runnel-gateway and the NATS server do not agree on nkeys"},
	{"ConfigMap/runnel-nats", "    tls {\n      cert_file: /etc/nats/tls/tls.crt\n      key_file: /etc/nats/tls/tls.key\n      ca_file: /etc/nats/tls/ca.crt\n      min_version: \"1.3\"\n      timeout: 5\n    }\n", "", "nats: runnel-gateway speaks to NATS at tls://"},
	{"ConfigMap/runnel-nats", "publish: [", "publihs: [", "nats: nats-server refuses the configuration"},
	{"StatefulSet/runnel-nats", "requests: {storage: 10Gi}", "requests: {storage: 8Gi}", "nats: the volume data with 8589934592 bytes"},
	{"StatefulSet/runnel-nats", "podAntiAffinity:", "podAffinity:", "nats: two servers may share a node"},
	{"Deployment/runnel-delivery", `RUNNEL_NATS_REPLICAS, value: "3"`, `RUNNEL_NATS_REPLICAS, value: "1"`, "nats: delivery makes streams with 1 copies on 3 servers"},
	{"Deployment/runnel-delivery", `RUNNEL_NATS_MAX_BYTES, value: "268435456"`, `RUNNEL_NATS_MAX_BYTES, value: "1268435456"`, "nats: streams may take"},

	{"Certificate/runnel-gateway", `- "runnel-gateway"`, `- "runnel-delivery"`, "certificates: runnel-gateway names [runnel-delivery]"},
	{"Certificate/runnel-admin", `- "runnel-admin"`, `- "runnel-history"`, "certificates: runnel-admin names [runnel-history], not the role of operators"},
	{"Certificate/runnel-nats", `- "*.runnel-nats"`, "", "certificates: runnel-nats: x509"},
	{"Certificate/runnel-nats", "usages: [digital signature, server auth, client auth]", "usages: [server auth]", "certificates: runnel-nats is not good for client auth"},
	{"Certificate/runnel-nats", "name: runnel-nats-ca", "name: runnel-ca", "certificates: NATS takes gateway for one of its servers"},
	{"Certificate/runnel-history", "secretName: runnel-history-tls", "secretName: history-tls", "certificates: runnel-history does not mount history-tls"},

	{"ServiceMonitor/runnel", "port: admin", "port: metrics", "monitoring: gateway is scraped 0 times"},
	{"ServiceMonitor/runnel", "path: /metrics", "path: /livez", "monitoring: /livez answers 200 to somebody without a token"},
	{"ServiceMonitor/runnel", "name: runnel-admin", "name: runnel-metrics", "monitoring: runnel shows a token that is not the one"},
	{"PrometheusRule/runnel", "alert: RunnelNoGateway", "alert: RunnelDown", "monitoring: the alert RunnelDown is there twice"},
	{"PrometheusRule/runnel", "expr: up{job=~\"runnel.*\"} == 0", "expr: ''", "monitoring: a rule of runnel is not whole"},

	{"Pod/runnel-test", "helm.sh/hook: test", "helm.sh/hook: post-install", "test: the Pod runnel-test is not run by helm test alone"},
	{"Pod/runnel-test", "runnel-gateway:0.1.0", "busybox:1", "test: runnel-test runs"},
	{"Pod/runnel-test", "/etc/runnel/admin/token", "/etc/runnel/token", "test: runnel-test reads /etc/runnel/token, and mounts no such file"},
	{"Pod/runnel-test", "secretName: runnel-admin", "secretName: runnel-auth", "test: runnel-test shows a token that is not the one"},
	{"Pod/runnel-test", "runnel-delivery:9090/readyz", "runnel-delivery:9000/readyz", "test: runnel-test asks http://runnel-delivery:9000/readyz, which proves nothing"},
	{"Pod/runnel-test", "runnel-delivery:9090/readyz", "runnel-worker:9090/readyz", "test: runnel-test asks http://runnel-worker:9090/readyz, which there is no Service"},
	{"Pod/runnel-test", "- http://runnel-history:9090/readyz", "", "test: runnel-test does not ask for history"},
	{"Pod/runnel-test", "- tcp://runnel-gateway:80", "", "test: runnel-test does not ask for clients"},
	{"Pod/runnel-test", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "security: runnel-test: it may gain privileges"},
	{"NetworkPolicy/runnel-test", "hook-succeeded", "hook-success", "selectors: the NetworkPolicy runnel-test stays when the test is over"},
	{"NetworkPolicy/runnel-test-history", "component: history", "component: store", "selectors: the NetworkPolicy runnel-test-history selects nothing"},
	{"NetworkPolicy/runnel-test-gateway", "- port: clients", "", "network: runnel-test reaches the gateway as a client"},
	{"Deployment/runnel-history", "- name: history", "- name: store", `names: the first container of runnel-history is "store", not "history"`},
}

// testMutations proves that each check can fail.
func testMutations(t *testing.T, b bed) {
	t.Helper()
	whole := everything(t)
	for _, m := range strictness {
		t.Run("strict "+m.object+" "+m.finding, func(t *testing.T) {
			_, err := Decode([]byte(m.apply(t, whole)))
			require.ErrorContains(t, err, m.finding)
		})
	}
	hit := map[string]bool{}
	for _, m := range mutations {
		t.Run(m.finding, func(t *testing.T) {
			var findings []string
			for _, err := range b.inspect(decode(t, m.apply(t, whole))) {
				findings = append(findings, err.Error())
			}
			require.Contains(t, strings.Join(findings, "\n"), m.finding)
		})
		name, _, _ := strings.Cut(m.finding, ":")
		hit[name] = true
	}
	for _, check := range Checks() {
		require.True(t, hit[check.Name], "no mutation proves the check %s", check.Name)
	}
}

// apply breaks the document; if there is nothing to replace, the table is wrong.
func (m mutation) apply(t *testing.T, whole string) string {
	t.Helper()
	kind, name, _ := strings.Cut(m.object, "/")
	documents := strings.Split(whole, "\n---\n")
	for i, document := range documents {
		if strings.Contains(document+"\n", "\nkind: "+kind+"\n") && strings.Contains(document, "\nmetadata:\n  name: "+name+"\n") {
			require.Contains(t, document, m.old, m.object)
			documents[i] = strings.Replace(document, m.old, m.new, 1)
			return strings.Join(documents, "\n---\n")
		}
	}
	require.Fail(t, "no such document", m.object)
	return ""
}
