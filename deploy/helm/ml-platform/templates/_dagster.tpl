{{/* Dagster's instance: storage in PostgreSQL, a pod for each run. */}}
{{- define "dagster.yaml" -}}
telemetry:
  enabled: false
storage:
  postgres:
    postgres_url:
      env: DAGSTER_POSTGRES
compute_logs: {{ toYaml .Values.dagster.computeLogs | nindent 2 }}
local_artifact_storage:
  module: dagster.core.storage.root
  class: LocalArtifactStorage
  config:
    base_dir: /srv/ml-platform/data/dagster
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    load_incluster_config: true
    job_namespace: {{ .Release.Namespace }}
    service_account_name: {{ .Release.Name }}-dagster
    dagster_home: /srv/ml-platform/dagster
    instance_config_map: {{ .Release.Name }}-dagster
    image_pull_policy: {{ .Values.images.pullPolicy }}
    {{- with .Values.images.pullSecrets }}
    image_pull_secrets:
      {{- range . }}
      - name: {{ . }}
      {{- end }}
    {{- end }}
    env_config_maps: [{{ .Release.Name }}-settings]
    env_secrets: [{{ .Values.existingSecret }}]
    labels:
      app.kubernetes.io/part-of: ml-platform
      app.kubernetes.io/instance: {{ .Release.Name }}
      app.kubernetes.io/component: run
    fail_pod_on_run_failure: true
    security_context: {{ include "containerSecurity" . | nindent 6 }}
    volumes: {{ include "runVolumes" . | nindent 6 }}
    volume_mounts:
      - {name: tmp, mount_path: /tmp}
      - {name: data, mount_path: /srv/ml-platform/data}
    run_k8s_config:
      job_spec_config:
        ttl_seconds_after_finished: {{ .Values.dagster.finishedJobSeconds }}
      pod_spec_config:
        enable_service_links: false
        # Where steps have pods of their own, the run's asks for them.
        automount_service_account_token: {{ eq .Values.executor "kubernetes" }}
        security_context: {{ include "podSecurity" . | nindent 10 }}
        {{- with .Values.nodeSelector }}
        node_selector: {{ toYaml . | nindent 10 }}
        {{- end }}
        {{- with .Values.tolerations }}
        tolerations: {{ toYaml . | nindent 10 }}
        {{- end }}
run_monitoring:
  enabled: true
  start_timeout_seconds: 900
  cancel_timeout_seconds: 900
  poll_interval_seconds: 60
  free_slots_after_run_end_seconds: 60
run_coordinator:
  module: ml_platform_dagster.resources.queue
  class: SharedRunCoordinator
  config:
    max_concurrent_runs: {{ .Values.dagster.maxConcurrentRuns }}
    tag_concurrency_limits:
      - key: ml_platform/use_case
        value: {applyLimitPerUniqueValue: true}
        limit: {{ .Values.dagster.maxRunsOfUseCase }}
    max_user_code_failure_retries: 10
    user_code_failure_retry_delay: 30
concurrency:
  pools: {default_limit: {{ .Values.dagster.maxStepsOfPool }}}
nux:
  enabled: false
{{- end }}

{{- define "runVolumes" -}}
- name: tmp
  empty_dir: {}
- name: data
  {{- if .Values.dataClaim }}
  persistent_volume_claim: {claim_name: {{ .Values.dataClaim }}}
  {{- else }}
  empty_dir: {}
  {{- end }}
{{- end }}

{{- define "workspace.yaml" -}}
load_from:
  {{- range $name, $_ := .Values.codeLocations }}
  - grpc_server:
      host: {{ $.Release.Name }}-code-{{ $name }}
      port: 4000
      location_name: {{ $name }}
  {{- end }}
{{- end }}

{{/* What pods of a team's runs have besides: (dict "root" $ "name" name "location" location) */}}
{{- define "containerContext" -}}
{{- $location := .location -}}
{{- $k8s := dict "resources" $location.runResources "env_config_maps" (list (printf "%s-code-%s" .root.Release.Name .name)) -}}
{{- with $location.existingSecret -}}
{{- $_ := set $k8s "env_secrets" (list .) -}}
{{- end -}}
{{- toJson (dict "k8s" $k8s) -}}
{{- end }}
