{{/*
The Deployment of gateway, delivery and history: "runnel.deployment" (list $ component). They differ in their environment
(runnel.<component>.env), the Secrets they mount (runnel.<component>.secrets) and the time they take to stop.
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
      labels:
        {{- include "runnel.labels" . | nindent 8 }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ $component }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "runnel.fullname" $root }}-{{ $component }}
      automountServiceAccountToken: false
      # Kubernetes would set RUNNEL_GATEWAY_PORT and the like for its Services, names that are the settings' own.
      enableServiceLinks: false
      {{- with $root.Values.image.pullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      securityContext:
        {{- include "runnel.podSecurity" . | nindent 8 }}
      # The preStop pause, the time to stop, and what is left to send the last traces and end.
      terminationGracePeriodSeconds: {{ add $stop 15 }}
      {{- include "runnel.placement" (list $root $component $values) | nindent 6 }}
      containers:
        - name: {{ $component }}
          image: {{ $root.Values.image.registry }}/runnel-{{ $component }}:{{ default $root.Chart.AppVersion $root.Values.image.tag }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          env:
            {{- include "runnel.memoryEnv" . | nindent 12 }}
            {{- include "runnel.commonEnv" (list $root $component $stop) | nindent 12 }}
            {{- include (printf "runnel.%s.env" $component) $root | nindent 12 }}
            {{- range $name, $value := $values.extraEnv }}
            - {name: {{ $name }}, value: {{ $value | quote }}}
            {{- end }}
          ports:
            {{- if eq $component "gateway" }}
            - {name: clients, containerPort: 8080}
            {{- end }}
            - {name: rpc, containerPort: 9000}
            - {name: admin, containerPort: 9090}
          # Alive is who answers at all; NATS and the database are a matter of readiness, a restart would not bring them back.
          startupProbe:
            httpGet: {path: /livez, port: admin}
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /livez, port: admin}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          readinessProbe:
            httpGet: {path: /readyz, port: admin}
            periodSeconds: 5
            timeoutSeconds: 4
            failureThreshold: 2
          lifecycle:
            preStop:
              # Until every node has stopped sending new connections here.
              sleep: {seconds: 5}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          securityContext:
            {{- include "runnel.containerSecurity" . | nindent 12 }}
          {{- with $secrets }}
          volumeMounts:
            {{- range . }}
            - {name: {{ .name }}, mountPath: /etc/runnel/{{ .name }}, readOnly: true}
            {{- end }}
          {{- end }}
      {{- with $secrets }}
      volumes:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{/* "runnel.commonEnv" (list $ component stopSeconds): the settings that all three have. */}}
{{- define "runnel.commonEnv" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
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
apiVersion: v1
kind: Service
metadata:
  {{- include "runnel.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  selector:
    {{- include "runnel.selector" (list (index . 0) (index . 1)) | nindent 4 }}
  ports:
    - {name: rpc, port: 9000, targetPort: rpc}
    - {name: admin, port: 9090, targetPort: admin}
{{- end -}}
