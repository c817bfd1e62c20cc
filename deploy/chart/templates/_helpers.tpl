{{- define "plexus.labels" -}}
app.kubernetes.io/name: plexus
app.kubernetes.io/part-of: plexus
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Where each distribution has its folders. */}}
{{- define "plexus.confDir" -}}
{{- $dirs := dict "k3s" "/var/lib/rancher/k3s/agent/etc/cni/net.d" "microk8s" "/var/snap/microk8s/current/args/cni-network" "openshift" "/etc/kubernetes/cni/net.d" -}}
{{- .Values.confDir | default (get $dirs .Values.distribution) | default "/etc/cni/net.d" -}}
{{- end }}

{{- define "plexus.binDir" -}}
{{- $dirs := dict "k3s" "/var/lib/rancher/k3s/data/cni" "microk8s" "/var/snap/microk8s/current/opt/cni/bin" "openshift" "/var/lib/cni/bin" "gke" "/home/kubernetes/bin" -}}
{{- .Values.binDir | default (get $dirs .Values.distribution) | default "/opt/cni/bin" -}}
{{- end }}

{{- define "plexus.podResourcesDir" -}}
{{- if eq .Values.distribution "microk8s" }}/var/snap/microk8s/common{{ end }}/var/lib/kubelet/pod-resources
{{- end }}

{{/* What excludes each other. */}}
{{- define "plexus.check" -}}
{{- if and .Values.oneShot .Values.dra.statusDrivers }}
{{- fail "oneShot and dra.statusDrivers exclude each other: a claim's status is written by the daemon. Leave one out." }}
{{- end }}
{{- if and .Values.dra.statusDrivers (not .Values.dra.enabled) }}
{{- fail "dra.statusDrivers needs dra.enabled: the daemon looks up the claims whose status it writes. Set both." }}
{{- end }}
{{- if and (or .Values.metrics.podMonitor.enabled .Values.metrics.alerts.enabled) (not .Values.metrics.enabled) }}
{{- fail "metrics.podMonitor and metrics.alerts need metrics.enabled: without it metrics are on 127.0.0.1 of each node alone. Set both." }}
{{- end }}
{{- end }}
