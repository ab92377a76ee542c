{{/* Names and labels. A component is gateway, delivery, history or nats. */}}

{{- define "runnel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* "runnel.selector" (list $ component): the labels that tell the pods of a component from all others. */}}
{{- define "runnel.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* "runnel.everything" $: the labels of all pods of the release. */}}
{{- define "runnel.everything" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* "runnel.labels" (list $ component): the labels of an object. */}}
{{- define "runnel.labels" -}}
{{- $root := index . 0 -}}
{{ include "runnel.selector" . }}
app.kubernetes.io/part-of: runnel
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* "runnel.metadata" (list $ component [name]): the metadata of an object; the name is that of the component unless given. */}}
{{- define "runnel.metadata" -}}
{{- $root := index . 0 -}}
name: {{ if gt (len .) 2 }}{{ index . 2 }}{{ else }}{{ include "runnel.fullname" $root }}-{{ index . 1 }}{{ end }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "runnel.labels" (list $root (index . 1)) | nindent 2 }}
{{- end -}}

{{/* "runnel.nats.url" $: the addresses of all NATS servers, so that no single one must be there to be found. */}}
{{- define "runnel.nats.url" -}}
{{- if .Values.nats.enabled -}}
{{- $servers := list -}}
{{- $name := printf "%s-nats" (include "runnel.fullname" .) -}}
{{- range $i := until (int .Values.nats.replicas) -}}
{{- $servers = append $servers (printf "%s://%s-%d.%s:4222" (ternary "tls" "nats" $.Values.nats.tls.enabled) $name $i $name) -}}
{{- end -}}
{{- join "," $servers -}}
{{- else -}}
{{- required "nats.url must name a NATS cluster when nats.enabled is false" .Values.nats.url -}}
{{- end -}}
{{- end -}}
