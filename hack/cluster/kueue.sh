#!/usr/bin/env bash
# Runs Kueue beside a cluster that is up, as a process of this machine, or ends it.
#
#   kueue.sh up|down [--name NAME]
#
# Kueue then holds back the Jobs that name a LocalQueue (label kueue.x-k8s.io/queue-name) until their ClusterQueue has quota for them.
# Builds Kueue first (build.sh kueue). `down` leaves its kinds and their objects behind; down.sh ends Kueue with its cluster.
#
#   hack/cluster/up.sh --nodes kwok:2 && hack/cluster/kueue.sh up

set -euo pipefail
source "$(dirname "$0")/lib.sh"

case ${1:-} in
  up | down) verb=$1 && shift ;;
  -h | --help) usage ;;
  *) usage 2 >&2 ;;
esac
take_name "$@"

configuration() {
  cat <<END
apiVersion: config.kueue.x-k8s.io/v1beta2
kind: Configuration
health: {healthProbeBindAddress: "0"}
metrics: {bindAddress: "0"}
webhook: {host: 127.0.0.1, port: $KUEUE_WEBHOOK_PORT, certDir: .}
visibilityServer: {bindAddress: $NODE_IP, bindPort: $KUEUE_VISIBILITY_PORT}
leaderElection: {leaderElect: false}
internalCertManagement: {enable: false}
integrations: {frameworks: [batch/job]}
END
}

webhooks() { # at this process instead of a Service
  kubectl kustomize "$MANIFESTS" | sed -E \
    -e '/^    service:$/d; /^      name: webhook-service$/d; /^      namespace: system$/d' \
    -e "s#^      path: (.*)#    url: https://127.0.0.1:$KUEUE_WEBHOOK_PORT\\1\n    caBundle: $CA#"
}

visibility_version() { # VERSION
  cat <<END
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: $1.visibility.kueue.x-k8s.io}
spec:
  group: visibility.kueue.x-k8s.io
  version: $1
  groupPriorityMinimum: 100
  versionPriority: 100
  caBundle: $CA
  service: {namespace: kueue-system, name: kueue-visibility-server}
END
}

visibility() { # its API, reached through a Service that leads to this machine
  cat <<END
apiVersion: v1
kind: Namespace
metadata: {name: kueue-system}
---
apiVersion: v1
kind: Service
metadata: {name: kueue-visibility-server, namespace: kueue-system}
spec:
  ports: [{name: https, port: 443, targetPort: $KUEUE_VISIBILITY_PORT}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kueue-visibility-server
  namespace: kueue-system
  labels: {kubernetes.io/service-name: kueue-visibility-server}
addressType: IPv4
ports: [{name: https, port: $KUEUE_VISIBILITY_PORT, protocol: TCP}]
endpoints: [{addresses: [$NODE_IP], conditions: {ready: true}}]
END
  visibility_version v1beta1
  visibility_version v1beta2
}

apply() { kubectl apply --server-side --force-conflicts -f "$@" >/dev/null; }
answers() { port_in_use "$KUEUE_WEBHOOK_PORT" && kubectl get --raw /apis/visibility.kueue.x-k8s.io/v1beta2; }

start_kueue() {
  mkdir -p "$STATE/kueue"
  install -m 0600 "$PKI/kueue.crt" "$STATE/kueue/tls.crt"
  install -m 0600 "$PKI/kueue.key" "$STATE/kueue/tls.key"
  configuration >"$STATE/kueue/config.yaml"
  apply "$MANIFESTS/crds"
  kubectl wait --for condition=Established -f "$MANIFESTS/crds" >/dev/null
  visibility | apply -
  start_process kueue env -C "$STATE/kueue" "$KUEUE/kueue" --config config.yaml --kubeconfig "$PKI/kueue.kubeconfig"
  wait_for 120 kueue "Kueue answers" answers
  webhooks | apply -
}

stop_kueue() { # what leads to it first, so that nothing waits for it in vain
  visibility_version v1beta1 | kubectl delete --ignore-not-found -f - >/dev/null
  visibility_version v1beta2 | kubectl delete --ignore-not-found -f - >/dev/null
  webhooks | kubectl delete --ignore-not-found -f - >/dev/null
  stop_process kueue
}

if [[ $verb == up ]]; then "$HERE/build.sh" kueue; fi
use_cluster "$name"
lock_cluster
[[ -f $KUBECONFIG ]] || die "cluster $NAME is not up; start it with up.sh --name $NAME"
[[ -n ${KUEUE_WEBHOOK_PORT:-} ]] || die "cluster $NAME was started by an older up.sh: take it down and up again"
KUEUE=$(kueue_cache_dir)/bin
MANIFESTS=$KUEUE/kueue-manifests
CA=$(base64 -w0 "$PKI/ca.crt")
if [[ $verb == up ]]; then start_kueue; else stop_kueue; fi
log "Kueue is $verb"
