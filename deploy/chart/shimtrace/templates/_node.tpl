{{- define "shimtrace.security" -}}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
  {{- with .Values.node.seLinuxOptions }}
  seLinuxOptions: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "shimtrace.mounts" -}}
{{- $v := .all.Values -}}
- {name: bindir, mountPath: /host{{ $v.node.bindir }}}
- {name: etc, mountPath: /host/etc/shimtrace}
- {name: journal, mountPath: /host/var/lib/shimtrace, readOnly: true}
- {name: state, mountPath: /host/run/shimtrace, readOnly: true}
- {name: containerd, mountPath: /host{{ index .containerd 0 }}}
- {name: socket, mountPath: /host{{ index .containerd 1 }}, readOnly: true}
{{- range $i, $dir := $v.node.path }}
- {name: path-{{ $i }}, mountPath: /host{{ $dir }}, readOnly: true}
{{- end }}
{{- if $v.node.restart }}
- {name: dbus, mountPath: /run/dbus, readOnly: true}
{{- end }}
{{- if $v.kata.enabled }}
- {name: kata, mountPath: /host{{ $v.kata.prefix }}}
{{- end }}
{{- end }}
