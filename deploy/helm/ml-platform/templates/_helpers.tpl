{{/* Labels of a part: (list $ "name" "component") */}}
{{- define "labels" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 2 }}
app.kubernetes.io/part-of: ml-platform
{{- end }}

{{- define "image" -}}
{{ (index . 0).Values.images.registry }}/{{ index . 1 }}:{{ (index . 0).Values.images.tag }}
{{- end }}

{{/* Of every pod, also of runs. OpenShift itself says which user and group. */}}
{{- define "podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What all pods share of their spec: (list $ "service account") */}}
{{- define "pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ $root.Release.Name }}-{{ index . 1 }}
automountServiceAccountToken: {{ eq (index . 1) "dagster" }}
enableServiceLinks: false
securityContext:
  {{- include "podSecurity" $root | nindent 2 }}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The settings that all containers share. */}}
{{- define "envFrom" -}}
- configMapRef: {name: {{ .Release.Name }}-settings}
- secretRef: {name: {{ .Values.existingSecret }}}
{{- end }}

{{/* Where Dagster's processes write, and what they are set up by. */}}
{{- define "dagsterMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /srv/ml-platform/data}
- {name: instance, mountPath: /srv/ml-platform/dagster/dagster.yaml, subPath: dagster.yaml}
- {name: instance, mountPath: /srv/ml-platform/dagster/workspace.yaml, subPath: workspace.yaml}
{{- end }}

{{- define "dataVolume" -}}
- name: data
  {{- if .Values.dataClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.dataClaim }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}

{{- define "dagsterVolumes" -}}
- name: tmp
  emptyDir: {}
{{ include "dataVolume" . }}
- name: instance
  configMap: {name: {{ .Release.Name }}-dagster}
{{- end }}

{{/* A pod that has another configuration is another pod. */}}
{{- define "checksums" -}}
checksum/settings: {{ toJson .Values.settings | sha256sum }}
checksum/dagster: {{ include "dagster.yaml" . | sha256sum }}
{{- end }}

{{/* Resources as Dagster's `dagster-k8s/config` of each entry. */}}
{{- define "kubernetesSteps" -}}
{{- $steps := dict -}}
{{- range $name, $resources := .Values.stepResources -}}
{{- $_ := set $steps $name (dict "container_config" (dict "resources" $resources)) -}}
{{- end -}}
{{- toJson $steps -}}
{{- end }}
