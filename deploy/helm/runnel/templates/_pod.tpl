{{/* What the pods of all components have in common. */}}

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
  # Of a rollout only the new pods count, or they would be placed around the old ones.
  matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{/* "runnel.placement" (list $ component values): where pods may run. */}}
{{- define "runnel.placement" -}}
{{- $values := index . 2 -}}
topologySpreadConstraints:
  {{- include "runnel.spread" (list (index . 0) (index . 1)) | trim | nindent 2 }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
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
