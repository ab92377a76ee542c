{{/*
The Deployment of gateway, delivery and history: "runnel.deployment" (list $ component). They differ in their environment
(runnel.<component>.env), the Secrets they mount (runnel.secrets) and the time they take to stop.
*/}}
{{- define "runnel.deployment" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := get $root.Values $component -}}
{{- $stop := ternary $values.drainSeconds $values.stopSeconds (eq $component "gateway") | int -}}
{{- $autoscaled := and (eq $component "gateway") $values.autoscaling.enabled -}}
{{- $secrets := include "runnel.secrets" . | fromYamlArray -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "runnel.metadata" . | nindent 2 }}
  {{- include "runnel.annotations" (list $values.annotations 2) }}
spec:
  {{- if not $autoscaled }}
  replicas: {{ $values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 25%}
  selector:
    matchLabels:
      {{- include "runnel.selector" . | nindent 6 }}
  template:
    metadata:
      {{- include "runnel.podMetadata" (list $root $component (printf "kubectl.kubernetes.io/default-container: %s" $component)) | nindent 6 }}
    spec:
      {{- /* It needs the preStop pause, the time to stop, and what is left to send the last traces and end. */}}
      {{- include "runnel.podSpec" (list $root $component (add $stop 15)) | nindent 6 }}
      containers:
        - name: {{ $component }}
          image: {{ include "runnel.image" . }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          env:
            {{- include "runnel.containerEnv" (list $root $component (include "runnel.commonEnv" (list $root $component $stop))) | trim | nindent 12 }}
          {{- with $values.envFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            {{- if eq $component "gateway" }}
            - {name: clients, containerPort: 8080}
            {{- end }}
            - {name: rpc, containerPort: 9000}
            - {name: admin, containerPort: 9090}
          # Any answer means alive; NATS and the database matter for readiness only, because a restart would not repair them.
          startupProbe:
            {{- include "runnel.merged" (list (include "runnel.startupProbe" .) $values.startupProbe) | nindent 12 }}
          livenessProbe:
            {{- include "runnel.merged" (list (include "runnel.livenessProbe" .) $values.livenessProbe) | nindent 12 }}
          readinessProbe:
            {{- include "runnel.merged" (list (include "runnel.readinessProbe" .) $values.readinessProbe) | nindent 12 }}
          lifecycle:
            preStop:
              # Until every node has stopped sending new connections here.
              sleep: {seconds: 5}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- include "runnel.merged" (list (include "runnel.containerSecurity" .) $values.securityContext) | nindent 12 }}
          {{- with concat $secrets $values.extraVolumeMounts }}
          volumeMounts:
            {{- range $secrets }}
            - {name: {{ .name }}, mountPath: /etc/runnel/{{ .name }}, readOnly: true}
            {{- end }}
            {{- with $values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
        {{- with $values.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with concat $secrets $values.extraVolumes }}
      volumes:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{- define "runnel.startupProbe" -}}
httpGet: {path: /livez, port: admin}
periodSeconds: 2
failureThreshold: 60
{{- end -}}

{{- define "runnel.livenessProbe" -}}
httpGet: {path: /livez, port: admin}
periodSeconds: 10
timeoutSeconds: 5
failureThreshold: 6
{{- end -}}

{{- define "runnel.readinessProbe" -}}
httpGet: {path: /readyz, port: admin}
periodSeconds: 5
timeoutSeconds: 4
failureThreshold: 2
{{- end -}}

{{/* "runnel.commonEnv" (list $ component stopSeconds): the built-in environment of a service: what all three have, then its own. */}}
{{- define "runnel.commonEnv" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{ include "runnel.memoryEnv" . }}
- {name: RUNNEL_NATS_PARTITIONS, value: {{ $root.Values.partitions | quote }}}
- {name: RUNNEL_RPC_LISTEN, value: ":9000"}
- {name: RUNNEL_RPC_STOP_TIMEOUT, value: {{ if eq $component "gateway" }}5s{{ else }}{{ index . 2 }}s{{ end }}}
{{- if $root.Values.rpc.tls.enabled }}
- {name: RUNNEL_RPC_TLS_CERT_FILE, value: /etc/runnel/rpc-tls/tls.crt}
- {name: RUNNEL_RPC_TLS_KEY_FILE, value: /etc/runnel/rpc-tls/tls.key}
- {name: RUNNEL_RPC_TLS_CA_FILE, value: /etc/runnel/rpc-tls/ca.crt}
{{- else }}
- {name: RUNNEL_RPC_PLAINTEXT, value: "true"}
{{- end }}
- {name: RUNNEL_ADMIN_LISTEN, value: ":9090"}
- {name: RUNNEL_ADMIN_TOKEN_FILE, value: /etc/runnel/admin/{{ $root.Values.admin.tokenSecret.key }}}
- {name: RUNNEL_ADMIN_PPROF, value: {{ $root.Values.admin.pprof | quote }}}
- {name: RUNNEL_TELEMETRY_LOG_FORMAT, value: json}
- {name: RUNNEL_TELEMETRY_LOG_LEVEL, value: {{ $root.Values.telemetry.logLevel }}}
- {name: RUNNEL_TELEMETRY_INSTALLATION, value: {{ printf "%s/%s" $root.Release.Namespace $root.Release.Name | quote }}}
{{- with $root.Values.telemetry.otlpEndpoint }}
- {name: RUNNEL_TELEMETRY_OTLP_ENDPOINT, value: {{ . | quote }}}
- {name: RUNNEL_TELEMETRY_SAMPLE_RATIO, value: {{ $root.Values.telemetry.sampleRatio | quote }}}
{{- end }}
{{- if ne $component "history" }}
- {name: RUNNEL_HISTORY_ADDRESS, value: "dns:///{{ include "runnel.fullname" $root }}-history:9000"}
- {name: RUNNEL_NATS_URL, value: {{ include "runnel.nats.url" $root | quote }}}
{{- if $root.Values.nats.tls.enabled }}
- {name: RUNNEL_NATS_TLS_CA_FILE, value: /etc/runnel/nats-tls/ca.crt}
{{- end }}
{{- if $root.Values.nats.auth.enabled }}
- {name: RUNNEL_NATS_NKEY_SEED_FILE, value: /etc/runnel/nats-user/seed}
{{- end }}
{{- end }}
{{ include (printf "runnel.%s.env" $component) $root }}
{{- end -}}

{{/* "runnel.secrets" (list $ component): the volumes with the Secrets of a component, each mounted at /etc/runnel/<volume>. */}}
{{- define "runnel.secrets" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- with $root.Values.admin.tokenSecret }}
{{ include "runnel.secret" (list "admin" .name .key) }}
{{- end }}
{{- if $root.Values.rpc.tls.enabled }}
{{ include "runnel.secret" (list "rpc-tls" (get $root.Values.rpc.tls.secrets $component)) }}
{{- end }}
{{- if ne $component "history" }}
{{- if $root.Values.nats.tls.enabled }}
{{ include "runnel.secret" (list "nats-tls" $root.Values.nats.tls.secret "ca.crt") }}
{{- end }}
{{- if $root.Values.nats.auth.enabled }}
{{ include "runnel.secret" (list "nats-user" (get $root.Values.nats.auth.seedSecrets $component) "seed") }}
{{- end }}
{{- end }}
{{- if eq $component "gateway" }}
{{- with $root.Values.auth.hmacSecret }}{{ if .name }}
{{ include "runnel.secret" (list "auth-hmac" .name .key) }}
{{- end }}{{ end }}
{{- with $root.Values.auth.previousHmacSecret }}{{ if .name }}
{{ include "runnel.secret" (list "auth-hmac-previous" .name .key) }}
{{- end }}{{ end }}
{{- with $root.Values.auth.jwksSecret }}{{ if .name }}
{{ include "runnel.secret" (list "auth-jwks" .name .key) }}
{{- end }}{{ end }}
{{- with $root.Values.gateway.clientTLSSecret }}
{{ include "runnel.secret" (list "clients-tls" .) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* "runnel.headless" (list $ component name): a Service that answers with the pods' own addresses, so that gRPC spreads its calls. */}}
{{- define "runnel.headless" -}}
{{- $values := get (index . 0).Values (index . 1) -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "runnel.metadata" . | nindent 2 }}
  {{- include "runnel.annotations" (list (ternary $values.internalService $values.service (eq (index . 1) "gateway")).annotations 2) }}
spec:
  clusterIP: None
  selector:
    {{- include "runnel.selector" (list (index . 0) (index . 1)) | nindent 4 }}
  ports:
    - {name: rpc, port: 9000, targetPort: rpc}
    - {name: admin, port: 9090, targetPort: admin}
{{- end -}}
