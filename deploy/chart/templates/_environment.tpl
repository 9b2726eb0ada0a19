{{- define "resnet.environment" -}}
- { name: RESNET_HOST, value: "0.0.0.0" }
- { name: RESNET_PORT, value: "8000" }
- { name: RESNET_ADMIN_HOST, value: {{ .Values.monitoring.enabled | ternary "0.0.0.0" "127.0.0.1" | quote }} }
- { name: RESNET_ADMIN_PORT, value: "8001" }
- { name: RESNET_MODELS, value: /models }
- { name: RESNET_LOG, value: json }
- { name: RESNET_DRAIN_DELAY_S, value: {{ .Values.drain.delaySeconds | quote }} }
- { name: RESNET_DRAIN_TIMEOUT_S, value: {{ .Values.drain.timeoutSeconds | quote }} }
{{- if .Values.connections.maxAgeSeconds }}
- { name: RESNET_MAX_CONNECTION_AGE_S, value: {{ .Values.connections.maxAgeSeconds | quote }} }
{{- end }}
{{- if .Values.models.modelName }}
- { name: RESNET_MODEL_NAME, value: {{ .Values.models.modelName | quote }} }
{{- end }}
{{- if .Values.models.defaultModel }}
- { name: RESNET_DEFAULT_MODEL, value: {{ .Values.models.defaultModel | quote }} }
{{- end }}
{{- if .Values.apiKeysSecret }}
- { name: RESNET_API_KEYS_FILE, value: /keys/api }
{{- end }}
{{- if .Values.gpu.enabled }}
- { name: RESNET_PROVIDERS, value: {{ .Values.gpu.providers | quote }} }
{{- else }}
- { name: RESNET_PROVIDERS, value: cpu }
{{- end }}
{{- if .Values.traces.endpoint }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .Values.traces.endpoint | quote }} }
- { name: RESNET_TRACE_RATIO, value: {{ .Values.traces.ratio | quote }} }
{{- end }}
{{- range $name, $value := .Values.settings }}
- { name: {{ printf "RESNET_%s" (upper $name) }}, value: {{ include "resnet.plainNumber" $value | quote }} }
{{- end }}
{{- end -}}

{{- define "resnet.modelVolume" -}}
{{- if eq .Values.models.source "pvc" }}
- name: models
  persistentVolumeClaim:
    claimName: {{ required "models.pvc.claimName is empty; name the claim that has the models" .Values.models.pvc.claimName }}
    readOnly: true
{{- else if eq .Values.models.source "initContainer" }}
- name: models
  emptyDir:
    sizeLimit: {{ .Values.models.initContainer.sizeLimit }}
{{- else if eq .Values.models.source "imageVolume" }}
- name: models
  image:
    reference: {{ required "models.imageVolume.reference is empty; name the image that has the models" .Values.models.imageVolume.reference }}
    pullPolicy: {{ .Values.models.imageVolume.pullPolicy }}
{{- end }}
{{- end -}}

{{- define "resnet.modelMount" -}}
- name: models
  mountPath: /models
  readOnly: true
  {{- if and (eq .Values.models.source "pvc") .Values.models.pvc.subPath }}
  subPath: {{ .Values.models.pvc.subPath }}
  {{- else if and (eq .Values.models.source "imageVolume") .Values.models.imageVolume.subPath }}
  subPath: {{ .Values.models.imageVolume.subPath }}
  {{- end }}
{{- end -}}

{{/* Helm reads numbers as floats and would print 1e+06. */}}
{{- define "resnet.plainNumber" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}
