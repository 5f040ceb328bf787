#!/usr/bin/env bash
# The operator against a real control plane with simulated nodes and the real Kueue, with the RBAC that ships.
#
#   integration.sh [FILTER…]     FILTER: only tests whose names contain it
#
# KEEP=1 leaves the cluster up for a look. FINETUNE_IT_ALL=1 kills the operator at every write instead of at some.
# Logs of the operator lie under target/tmp.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
cluster=it

finish() {
  local code=$?
  [[ -n ${KEEP:-} ]] || hack/cluster/down.sh --name "$cluster"
  exit "$code"
}
trap finish EXIT

[[ -n ${KEEP:-} ]] || hack/cluster/down.sh --name "$cluster"
hack/cluster/up.sh --name "$cluster" --nodes kwok:2
hack/cluster/kueue.sh up --name "$cluster"
PATH=$(hack/cluster/build.sh --bin):$PATH
KUBECONFIG=$(hack/cluster/kubeconfig.sh --name "$cluster")
export PATH KUBECONFIG
state=$(dirname "$KUBECONFIG")

kubectl apply --server-side -k crds >/dev/null
kubectl kustomize crds | kubectl wait --for=condition=Established -f - >/dev/null
kubectl apply --server-side -f deploy/base/namespace.yaml -f deploy/base/serviceaccount.yaml -f deploy/base/rbac.yaml >/dev/null
namespace=$(kubectl get -f deploy/base/serviceaccount.yaml -o jsonpath='{.metadata.namespace}')
account=$(kubectl get -f deploy/base/serviceaccount.yaml -o jsonpath='{.metadata.name}')

operator=$state/operator.kubeconfig
(
  umask 077
  server=$(kubectl config view --raw -o jsonpath='{.clusters[0].cluster.server}')
  kubectl config view --raw -o jsonpath='{.clusters[0].cluster.certificate-authority-data}' | base64 -d >"$state/operator-ca.crt"
  kubectl --kubeconfig "$operator" config set-cluster it --server "$server" --certificate-authority "$state/operator-ca.crt" --embed-certs
  kubectl --kubeconfig "$operator" config set-credentials operator --token "$(kubectl create token -n "$namespace" "$account" --duration 24h)"
  kubectl --kubeconfig "$operator" config set-context it --cluster it --user operator
  kubectl --kubeconfig "$operator" config use-context it
) >/dev/null

export FINETUNE_IT_KUBECONFIG=$KUBECONFIG FINETUNE_IT_OPERATOR_KUBECONFIG=$operator
export FINETUNE_IT_AUDIT_LOG=$state/audit.log FINETUNE_IT_NAMESPACE=$namespace

run_tests() { cargo test --quiet --test integration -- --include-ignored "$@"; }
if (($#)); then
  run_tests --test-threads 1 --nocapture "$@"
  exit
fi
status=0
run_tests --test-threads 4 --skip alone:: --skip audit:: || status=1
run_tests --test-threads 1 --nocapture alone:: || status=1
run_tests audit:: || status=1
exit "$status"
