{{- define "finetune.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "finetune.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "finetune.labels" -}}
{{ include "finetune.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "finetune.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{- /* What a container of ours may do: nothing but read its own files and speak. Pod Security `restricted` asks for no more. */ -}}
{{- define "finetune.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "finetune.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* The operator's rights in the namespaces of the jobs. No Secret and no ConfigMap can be read; nothing is a wildcard. */ -}}
{{- define "finetune.namespacedRules" -}}
# delete is for ttlSecondsAfterFinished alone.
- {apiGroups: [finetune.dev], resources: [finetunejobs], verbs: [get, list, watch, delete]}
- {apiGroups: [finetune.dev], resources: [finetunejobs/status], verbs: [update]}
- {apiGroups: [batch], resources: [jobs], verbs: [get, list, watch, create, delete]}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch, delete]}
# A claim is deleted by the garbage collector, with its job.
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, create]}
# Read: why a Job has no pod (quota, LimitRange), why a pod can't start. Written: what happened to a FineTuneJob.
- {apiGroups: [""], resources: [events], verbs: [list]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [get, create, patch]}
{{- end }}

{{- /* Where pods report their progress. */ -}}
{{- define "finetune.progressUrl" -}}
{{- $host := .Values.progress.clusterIP | default (printf "%s.%s.svc" (include "finetune.name" .) .Release.Namespace) -}}
{{- $ours := printf "https://%s:%d/v1/progress" $host (int .Values.progress.port) -}}
{{- .Values.progress.url | default $ours -}}
{{- end }}

{{- /* What is cluster-scoped, and therefore asked for in namespaced mode too. */ -}}
{{- define "finetune.clusterRules" -}}
- {apiGroups: [finetune.dev], resources: [clusterfinetuneruntimes], verbs: [list]}
# Which GPUs there are, and whether the node of a silent pod is lost.
- {apiGroups: [""], resources: [nodes], verbs: [get, list]}
{{- if .Values.progress.enabled }}
# Whose report of progress it is.
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
{{- end }}
{{- end }}
