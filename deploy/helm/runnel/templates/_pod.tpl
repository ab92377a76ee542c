{{/* What the pods of all components have in common. */}}

{{/* "runnel.merged" (list YAML values): an object with the fields that the operator sets; null removes a field. */}}
{{- define "runnel.merged" -}}
{{- $merged := index . 0 | fromYaml -}}
{{- range $name, $value := index . 1 -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $merged $name -}}
{{- else -}}
{{- $_ := set $merged $name $value -}}
{{- end -}}
{{- end -}}
{{ toYaml $merged }}
{{- end -}}

{{/* Security that the restricted pod security standard asks for, and more: 65532 is the user of the images. */}}
{{- define "runnel.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "runnel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/*
Go collects garbage harder as it nears GOMEMLIMIT, and the kernel kills at the container's limit. The limit comes in MiB,
rounded up; with six zeros behind it the same number is bytes: 95.4 % of the limit, which leaves room for what Go does not
count.
*/}}
{{- define "runnel.memoryEnv" -}}
- name: MEMORY_LIMIT_MIB
  valueFrom:
    resourceFieldRef: {resource: limits.memory, divisor: 1Mi}
- name: GOMEMLIMIT
  value: $(MEMORY_LIMIT_MIB)000000
{{- end -}}

{{/* "runnel.spread" (list $ component): over zones, then over nodes. Nodes are a wish always: where zones have unequal numbers
     of them, both together as a must would leave a pod without a place. */}}
{{- define "runnel.spread" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: {{ if eq . "kubernetes.io/hostname" }}ScheduleAnyway{{ else }}{{ $root.Values.topologySpread.whenUnsatisfiable }}{{ end }}
  labelSelector:
    matchLabels:
      {{- include "runnel.selector" (list $root $component) | nindent 6 }}
  {{- if ne $component "nats" }}
  # During a rollout only the new pods count; otherwise they would be placed around the old ones.
  matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* "runnel.placement" (list $ component values): where pods may run. */}}
{{- define "runnel.placement" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
  {{- range $values.topologySpreadConstraints }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "runnel.selector" (list $root $component) | fromYaml)) }}
  - {{- include "runnel.merged" (list (toYaml $own) .) | nindent 4 }}
  {{- end }}
{{- else }}
  {{- include "runnel.spread" (list $root $component) | trim | nindent 2 }}
{{- end }}
{{- with include "runnel.affinity" . | fromYaml }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "hostAliases" "dnsConfig" }}
{{- with get $values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $field := list "priorityClassName" "runtimeClassName" "schedulerName" "dnsPolicy" }}
{{- with get $values $field }}
{{ $field }}: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* "runnel.affinity" (list $ component values): that of the operator, and for NATS that no two servers share a node. */}}
{{- define "runnel.affinity" -}}
{{- $affinity := deepCopy (index . 2).affinity -}}
{{- if (index . 2).antiAffinity -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "runnel.selector" . | fromYaml)) -}}
{{- $anti := $affinity.podAntiAffinity | default dict -}}
{{- $_ := set $anti "requiredDuringSchedulingIgnoredDuringExecution" (append ($anti.requiredDuringSchedulingIgnoredDuringExecution | default list) $term) -}}
{{- $_ := set $affinity "podAntiAffinity" $anti -}}
{{- end -}}
{{ toYaml $affinity }}
{{- end -}}

{{/* "runnel.podMetadata" (list $ component annotations): the metadata of a pod template, with the chart's annotations as YAML. */}}
{{- define "runnel.podMetadata" -}}
{{- $component := index . 1 -}}
{{- $values := get (index . 0).Values $component -}}
labels:
  {{- include "runnel.labels" (list (index . 0) $component) | nindent 2 }}
  {{- with include "runnel.addedLabels" (list (list (index $ 0) $component) (printf "%s.podLabels" $component) $values.podLabels) }}
  {{- . | trim | nindent 2 }}
  {{- end }}
annotations:
  {{- include "runnel.merged" (list (index . 2) $values.podAnnotations) | nindent 2 }}
{{- end -}}

{{/* "runnel.podSpec" (list $ component seconds): what stands in a pod beside its containers and volumes. It needs that many seconds
     to stop. */}}
{{- define "runnel.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := get $root.Values $component -}}
serviceAccountName: {{ include "runnel.serviceAccount" . }}
automountServiceAccountToken: false
# Kubernetes would set RUNNEL_GATEWAY_PORT and the like for its Services, names that are the settings' own.
enableServiceLinks: false
{{- include "runnel.pullSecrets" $root }}
securityContext:
  {{- include "runnel.merged" (list (include "runnel.podSecurity" .) $values.podSecurityContext) | nindent 2 }}
{{- with $values.terminationGracePeriodSeconds }}
{{- if lt (int .) (int (index $ 2)) }}
{{- fail (printf "%s.terminationGracePeriodSeconds is %d; a pod needs %d to stop" $component (int .) (int (index $ 2))) }}
{{- end }}
{{- end }}
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds | default (index . 2) | int }}
{{ include "runnel.placement" (list $root $component $values) }}
{{- with $values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "runnel.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/*
"runnel.containerEnv" (list $ component builtins): the environment of a component's container. builtins is a YAML list in the order in
which values may refer to each other with $(NAME). A value of extraEnv replaces the built-in one of its name, and the one that gives
the same setting by a file or directly: NAME and NAME_FILE are one setting. So no name is there twice.
*/}}
{{- define "runnel.containerEnv" -}}
{{- $values := get (index . 0).Values (index . 1) -}}
{{- $extra := deepCopy $values.extraEnv -}}
{{- range index . 2 | fromYamlArray }}
{{- $variable := . }}
{{- $other := ternary (trimSuffix "_FILE" .name) (printf "%s_FILE" .name) (hasSuffix "_FILE" .name) }}
{{- if hasKey $extra .name }}
{{- $variable = mergeOverwrite (dict "name" .name) (include "runnel.variable" (get $extra .name) | fromYaml) }}
{{- $_ := unset $extra .name }}
{{- else if hasKey $extra $other }}
{{- $variable = dict }}
{{- end }}
{{- with $variable }}
{{ include "runnel.entry" . }}
{{- end }}
{{- end }}
{{- range $name, $value := $extra }}
{{ include "runnel.entry" (mergeOverwrite (dict "name" $name) (include "runnel.variable" $value | fromYaml)) }}
{{- end }}
{{- end -}}

{{/* "runnel.variable" value: a value of extraEnv as fields of a variable. */}}
{{- define "runnel.variable" -}}
{{- if kindIs "map" . }}{{ toYaml . }}{{ else }}value: {{ . | toString | quote }}{{ end -}}
{{- end -}}

{{/* "runnel.entry" variable: one item of the list env. */}}
{{- define "runnel.entry" -}}
{{- if hasKey . "valueFrom" -}}
- name: {{ .name }}
  valueFrom:
    {{- toYaml .valueFrom | nindent 4 }}
{{- else -}}
- {name: {{ .name }}, value: {{ .value | quote }}}
{{- end -}}
{{- end -}}

{{/* "runnel.secret" (list volume secret keys…): a volume with those keys of a Secret; without keys all of them. */}}
{{- define "runnel.secret" -}}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    {{- with slice . 2 }}
    items:
      {{- range . }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
    {{- end }}
{{- end -}}
