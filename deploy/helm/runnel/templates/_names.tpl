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

{{/* "runnel.ownLabels" (list $ component): the chart's own labels of an object. */}}
{{- define "runnel.ownLabels" -}}
{{- $root := index . 0 -}}
{{ include "runnel.selector" . }}
app.kubernetes.io/part-of: runnel
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{/* "runnel.labels" (list $ component): the labels of an object, with those that the operator adds to all of them. */}}
{{- define "runnel.labels" -}}
{{ include "runnel.ownLabels" . }}
{{- include "runnel.addedLabels" (list . "commonLabels" (index . 0).Values.commonLabels) }}
{{- end -}}

{{/* "runnel.addedLabels" (list (list $ component) value labels): labels of the operator. Selectors rest on the chart's own. */}}
{{- define "runnel.addedLabels" -}}
{{- $own := include "runnel.ownLabels" (index . 0) | fromYaml -}}
{{- $value := index . 1 -}}
{{- range $name, $label := index . 2 }}
{{- if hasKey $own $name }}{{ fail (printf "%s: the chart sets the label %s itself" $value $name) }}{{ end }}
{{ $name }}: {{ $label | quote }}
{{- end -}}
{{- end -}}

{{/* "runnel.metadata" (list $ component [name]): the metadata of an object; the name is that of the component unless given. */}}
{{- define "runnel.metadata" -}}
{{- $root := index . 0 -}}
name: {{ if gt (len .) 2 }}{{ index . 2 }}{{ else }}{{ include "runnel.fullname" $root }}-{{ index . 1 }}{{ end }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "runnel.labels" (list $root (index . 1)) | nindent 2 }}
{{- end -}}

{{/* "runnel.annotations" (list annotations indent): as a part of metadata; nothing if there are none. */}}
{{- define "runnel.annotations" -}}
{{- with index . 0 -}}
{{- printf "annotations:\n%s" (toYaml . | indent 2) | nindent (int (index $ 1)) -}}
{{- end -}}
{{- end -}}

{{/* "runnel.serviceAccount" (list $ component): the name of the ServiceAccount of a component. */}}
{{- define "runnel.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $account := (get $root.Values (index . 1)).serviceAccount -}}
{{- if not (or $account.create $account.name) -}}
{{- fail (printf "%s.serviceAccount.name must name a ServiceAccount when %s.serviceAccount.create is false" (index . 1) (index . 1)) -}}
{{- end -}}
{{- $account.name | default (printf "%s-%s" (include "runnel.fullname" $root) (index . 1)) -}}
{{- end -}}

{{/* "runnel.image" (list $ component): the image of a service. A digest wins over a tag. */}}
{{- define "runnel.image" -}}
{{- $root := index . 0 -}}
{{- $own := (get $root.Values (index . 1)).image -}}
{{- $repository := $own.repository | default (printf "%s/runnel-%s" $root.Values.image.registry (index . 1)) -}}
{{- if $own.digest -}}
{{- printf "%s@%s" $repository $own.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($own.tag | default $root.Values.image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
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

{{/* "runnel.ingress" $: whether there is an Ingress, its hosts and its certificates. The former values host, path and tlsSecret are the
first host, and make an Ingress unless ingress.enabled is false. */}}
{{- define "runnel.ingress" -}}
{{- with .Values.ingress -}}
{{- $hosts := .hosts | default list -}}
{{- $tls := .tls | default list -}}
{{- if .host -}}
{{- $hosts = prepend $hosts (dict "host" .host "paths" (list (dict "path" (.path | default "/v1/ws")))) -}}
{{- with ternary "chat-example-com-tls" .tlsSecret (kindIs "invalid" .tlsSecret) -}}
{{- $tls = prepend $tls (dict "secretName" . "hosts" (list $.Values.ingress.host)) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "enabled" (ternary (ne .host "") .enabled (kindIs "invalid" .enabled)) "hosts" $hosts "tls" $tls) -}}
{{- end -}}
{{- end -}}
