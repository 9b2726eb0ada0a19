{{- define "resnet.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "resnet.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "resnet.labels" -}}
{{ include "resnet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "resnet.metadata" -}}
name: {{ include "resnet.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "resnet.labels" . | nindent 2 }}
{{- end -}}

{{- define "resnet.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "resnet.fullname" . -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "resnet.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The service ends by itself 2.5 s after the delay and the timeout, at the latest. */}}
{{- define "resnet.gracePeriod" -}}
{{- add (ceil .Values.drain.delaySeconds) (ceil .Values.drain.timeoutSeconds) 5 -}}
{{- end -}}

{{- define "resnet.mountsModels" -}}
{{- if ne .Values.models.source "image" -}}true{{- end -}}
{{- end -}}
