#!/usr/bin/env bash
# What runs cost: requests, time beside plain Jobs, CPU and memory of the operator. On a real control plane with simulated nodes.
#
#   bench.sh
#
#   RUNS=100    runs at once            ROUNDS=3   rounds of runs and of plain Jobs, in turns
#   PAUSE=5     seconds of work a save  IDLE=60    seconds of silence that are listened to at the end
#   KEEP=1      leaves the cluster up for a look
#
# Runs FINETUNE_BENCH_OPERATOR if that is set, else target/release/finetune-operator if it is newer than the sources, else a dev build:
# its CPU and memory are not honest.
# Nothing else should run on the machine meanwhile. The log of the operator is target/tmp/bench-operator.log.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
cluster=bench

finish() {
  local code=$?
  [[ -n ${KEEP:-} ]] || hack/cluster/down.sh --name "$cluster"
  exit "$code"
}
trap finish EXIT

# Built first, so that no compiler runs beside what is measured.
cargo bench --quiet --profile dev --bench runs --no-run
release=target/release/finetune-operator
if [[ -n ${FINETUNE_BENCH_OPERATOR:-} ]]; then
  echo "operator: $FINETUNE_BENCH_OPERATOR" >&2
elif [[ -x $release && -z $(find src Cargo.toml Cargo.lock -type f -newer "$release" -print -quit) ]]; then
  export FINETUNE_BENCH_OPERATOR=$release
else
  echo "warning: no release build of these sources (cargo build --release); CPU and memory of a dev build say little" >&2
fi

DURABLE=1 hack/cluster/up.sh --name "$cluster" --nodes kwok:10
PATH=$(hack/cluster/build.sh --bin):$PATH
KUBECONFIG=$(hack/cluster/kubeconfig.sh --name "$cluster")
export PATH KUBECONFIG
state=$(dirname "$KUBECONFIG")

kubectl apply --server-side -k crds >/dev/null
kubectl kustomize crds | kubectl wait --for=condition=Established -f - >/dev/null
kubectl apply --server-side -f deploy/base/namespace.yaml -f deploy/base/serviceaccount.yaml -f deploy/base/rbac.yaml >/dev/null
namespace=$(kubectl get -f deploy/base/serviceaccount.yaml -o jsonpath='{.metadata.namespace}')
account=$(kubectl get -f deploy/base/serviceaccount.yaml -o jsonpath='{.metadata.name}')

# The admin's way to the cluster with the operator's own token: RBAC holds as in production.
operator=$state/operator.kubeconfig
(
  umask 077
  token=$(kubectl create token -n "$namespace" "$account" --duration 24h)
  kubectl config view --raw --minify --flatten >"$operator"
  user=$(kubectl --kubeconfig "$operator" config view -o jsonpath='{.users[0].name}')
  kubectl --kubeconfig "$operator" config delete-user "$user"
  kubectl --kubeconfig "$operator" config set-credentials "$user" --token "$token"
) >/dev/null

export FINETUNE_IT_KUBECONFIG=$KUBECONFIG FINETUNE_IT_OPERATOR_KUBECONFIG=$operator
export FINETUNE_IT_AUDIT_LOG=$state/audit.log FINETUNE_IT_NAMESPACE=$namespace
echo "load of the machine before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores" >&2
cargo bench --quiet --profile dev --bench runs
