{{- define "shimtrace.labels" -}}
app.kubernetes.io/name: shimtrace
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "shimtrace.selector" -}}
app.kubernetes.io/name: shimtrace
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shimtrace.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Where containerd's configuration and its socket are. */}}
{{- define "shimtrace.containerd" -}}
{{- $all := dict
  "k8s" (list "/etc/containerd" "/run/containerd")
  "k3s" (list "/var/lib/rancher/k3s/agent/etc/containerd" "/run/k3s/containerd")
  "rke2" (list "/var/lib/rancher/rke2/agent/etc/containerd" "/run/k3s/containerd")
  "k0s" (list "/etc/k0s" "/run/k0s")
  "microk8s" (list "/var/snap/microk8s/current/args" "/var/snap/microk8s/common/run") -}}
{{- get $all .Values.distribution | default (list "" "") | toJson -}}
{{- end }}

{{- define "shimtrace.check" -}}
{{- if not (has .Values.distribution (list "k8s" "k3s" "rke2" "k0s" "microk8s")) -}}
{{- fail (printf "distribution %q is none of k8s, k3s, rke2, k0s, microk8s" .Values.distribution) -}}
{{- end -}}
{{- if not (has .Values.mode (list "install" "uninstall")) -}}
{{- fail (printf "mode %q is neither install nor uninstall" .Values.mode) -}}
{{- end -}}
{{- if and .Values.collector.enabled (not .Values.collector.endpoint) -}}
{{- fail "collector.endpoint says where the collector sends what it keeps: set it" -}}
{{- end -}}
{{- end }}

{{/* shimtrace's configuration; with a collector, it ships there. */}}
{{- define "shimtrace.config" -}}
{{- if .Values.collector.enabled -}}
[export]
endpoint = "http://127.0.0.1:4317"
protocol = "grpc"

{{ end -}}
{{- .Values.config -}}
{{- end }}

{{- define "shimtrace.milliseconds" -}}
{{- if hasSuffix "ms" . -}}
{{- trimSuffix "ms" . | int -}}
{{- else if hasSuffix "s" . -}}
{{- mulf 1000 (trimSuffix "s" . | float64) | int -}}
{{- else -}}
{{- fail (printf "%q is no time such as 500ms or 2s" .) -}}
{{- end -}}
{{- end }}
