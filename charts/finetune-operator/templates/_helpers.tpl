{{- define "finetune-operator.name" -}}
{{ .Values.fullnameOverride | default "finetune-operator" | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Agents know the report server by this name, whatever the operator is called. */}}
{{- define "finetune-operator.reports" -}}
finetune-operator-reports
{{- end }}

{{- define "finetune-operator.selector" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "finetune-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "finetune-operator.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "finetune-operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "finetune-operator.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/*
Metadata of an object of the catalogue; the argument is a list of the root and the name, and true for a default.
Helm looks kinds up before it installs anything, so on the first install, when the kinds are not known yet, the catalogue comes
as a hook after the rest. The ownership annotations let the next upgrade take these objects over as ordinary ones.
*/}}
{{- define "finetune-operator.catalogueMetadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 }}
labels:
  {{- include "finetune-operator.labels" $root | nindent 2 }}
  app.kubernetes.io/component: catalogue
{{- $default := and (gt (len .) 2) (index . 2) }}
{{- $known := $root.Capabilities.APIVersions.Has "finetune.dev/v1alpha1/TrainingRuntime" }}
{{- if or $default (not $known) }}
annotations:
  {{- if $default }}
  finetune.dev/is-default: "true"
  {{- end }}
  {{- if not $known }}
  meta.helm.sh/release-name: {{ $root.Release.Name }}
  meta.helm.sh/release-namespace: {{ $root.Release.Namespace }}
  helm.sh/hook: post-install,post-upgrade
  helm.sh/hook-delete-policy: before-hook-creation
  {{- end }}
{{- end }}
{{- end }}
