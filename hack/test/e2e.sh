#!/usr/bin/env bash
# The packaged operator on a real node with a real trainer. Needs root.
#
#   e2e.sh [STEP…]     all steps in order, or only those named (after the demo): the files of tests/e2e/steps
#
# KEEP=1 leaves the cluster up for a look; what is up is used again.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
steps=$root/tests/e2e/steps
order=(demo imports deletion object-store no-such-data lora serving sharing gateway two-nodes life retention crashes away clean)
export CLUSTER=e2e PROFILE=${PROFILE:-dev}
ns=demo

finish() {
  local code=$?
  if ((code)); then diagnose || true; fi
  [[ -z ${endpoint:-} ]] || "$root/hack/s3.sh" stop "$endpoint" >/dev/null 2>&1 || true
  [[ -n ${KEEP:-} ]] || "$root/hack/demo/demo.sh" down
  exit "$code"
}
trap finish EXIT

reach_cluster() {
  PATH=$("$root/hack/cluster/build.sh" --bin):$PATH
  KUBECONFIG=$("$root/hack/cluster/kubeconfig.sh" --name "$CLUSTER")
  export PATH KUBECONFIG
}

diagnose() {
  echo "--- what there is" >&2
  reach_cluster || return
  {
    kubectl get nodes,pods,jobs,pvc,pv,finetunes,checkpoints,deployments.finetune.dev -A -o wide
    kubectl describe -n "$ns" finetunes,deployments.finetune.dev
    kubectl describe -n "$ns" pods
    kubectl get events -A --sort-by=.lastTimestamp | tail -n 60
    kubectl logs -n finetune-system deployment/finetune-operator --tail=100
    kubectl logs -n "$ns" -l finetune.dev/role --all-containers --prefix --tail=40
    tail -n 30 "${KUBECONFIG%/*}"/logs/{kubelet,containerd,kube-controller-manager}.log
  } >&2
}

fail() { echo "FAILED: $*" >&2 && exit 1; }
passed=0
pass() { passed=$((passed + 1)) && echo "ok $passed - $* (${SECONDS} s)"; }
get() { kubectl get -n "$ns" "$@"; }
finished() { kubectl wait -n "$ns" --for=condition=Finished "finetune/$1" --timeout=600s >/dev/null; }
phase() { get finetunes "$1" -o jsonpath='{.status.phase}'; }
reaches() { kubectl wait -n "$ns" --for=jsonpath='{.status.phase}'="$2" "finetune/$1" --timeout="${3:-180s}" >/dev/null || fail "$1 does not get $2"; }
apply_run() { # NAME [JQ]: the demo's run under another name, changed by a jq program
  kubectl create --dry-run=client -o json -f "$root/hack/demo/capitals.yaml" | jq "del(.metadata.namespace) | .metadata.name = \"$1\" | ${2:-.}" | kubectl apply -n "$ns" -f - >/dev/null
}
has_checkpoint() { kubectl wait -n "$ns" --for=jsonpath='{.status.phase}'=Ready "checkpoint/$1" --timeout=300s >/dev/null; }
appears() { kubectl wait -n "$ns" --for=create "$1" --timeout=300s >/dev/null || fail "$1 does not appear"; }

checkpoints_are_good() { # RUN FORMAT: four, Ready, with falling loss, the last one best
  local rows
  rows=$(get checkpoints -l "finetune.dev/fine-tune=$1" --sort-by=.spec.step \
    -o jsonpath='{range .items[*]}{.spec.step} {.status.phase} {.spec.format} {.status.metrics.eval_loss} {.status.sizeBytes} {.status.resumable}{"\n"}{end}')
  awk -v format="$2" '
    $2 != "Ready" || $3 != format || $5 <= 0 || $6 != "true" {print "bad row: " $0; bad = 1}
    $1 != NR * 50 {print "unexpected step: " $0; bad = 1}
    NR > 1 && $4 >= last {print "loss does not fall: " $0; bad = 1}
    {last = $4}
    END {exit bad || NR != 4}' <<<"$rows" || fail "checkpoints of $1 are not as they should be:"$'\n'"$rows"
  [[ $(get finetunes "$1" -o jsonpath='{.status.bestCheckpoint}') == "$1-step-200" ]] || fail "the best checkpoint of $1 is not the last"
}

folder_of() { # CHECKPOINT: where its files lie on this machine
  local claim volume
  claim=$(get checkpoint "$1" -o jsonpath='{.spec.storage.volume.claimName}')
  volume=$(get pvc "$claim" -o jsonpath='{.spec.volumeName}')
  echo "$(kubectl get pv "$volume" -o jsonpath='{.spec.local.path}')/$(get checkpoint "$1" -o jsonpath='{.spec.storage.volume.path}')"
}

# shellcheck source=../cluster/lib.sh
(source "$root/hack/cluster/lib.sh" && need_commands jq=jq curl=curl)
# A cluster that some earlier test left half alive proves nothing.
[[ -n ${KEEP:-} ]] || "$root/hack/demo/demo.sh" down
"$root/hack/demo/demo.sh" up
reach_cluster
wanted=("$@")
for step in "${order[@]}"; do
  if ((${#wanted[@]})) && [[ " ${wanted[*]} " != *" $step "* ]]; then continue; fi
  "$root/hack/cluster/volumes.sh" --name "$CLUSTER" >/dev/null
  # shellcheck source=/dev/null
  source "$steps/$step.sh"
done
restarts=$(kubectl get pods -n finetune-system -o jsonpath='{.items[*].status.containerStatuses[*].restartCount}')
[[ $restarts =~ ^[0\ ]*$ ]] || fail "the operator restarted: $restarts"
echo "$passed passed, 0 failed"
