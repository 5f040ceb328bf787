#!/usr/bin/env bash
# The packaged operator on a real node: the demo itself (Helm, TRL, full weights on a volume), then LoRA into an object store, a
# dataset that is not there, an operator that is away while a run trains, and deletion that leaves nothing. Needs root.
#
#   e2e.sh          KEEP=1 leaves the cluster up for a look

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
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

diagnose() {
  kubectl get pods,jobs,finetunes,checkpoints -A -o wide
  kubectl describe -n "$ns" finetunes
  kubectl logs -n finetune-system deployment/finetune-operator --tail=60
  kubectl logs -n "$ns" -l finetune.dev/role=train --all-containers --prefix --tail=40
}

fail() { echo "FAILED: $*" >&2 && exit 1; }
passed=0
pass() { passed=$((passed + 1)) && echo "ok $passed - $*"; }
get() { kubectl get -n "$ns" "$@"; }
finished() { kubectl wait -n "$ns" --for=condition=Finished "finetune/$1" --timeout=600s >/dev/null; }
phase() { get finetunes "$1" -o jsonpath='{.status.phase}'; }

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

# shellcheck source=../cluster/lib.sh
(source "$root/hack/cluster/lib.sh" && need_commands jq=jq curl=curl)
"$root/hack/demo/demo.sh" up
PATH=$("$root/hack/cluster/build.sh" --bin):$PATH
KUBECONFIG=$("$root/hack/cluster/kubeconfig.sh" --name "$CLUSTER")
export PATH KUBECONFIG
[[ $(phase capitals) == Succeeded ]] || fail "the demo run is $(phase capitals)"
checkpoints_are_good capitals Model
pass "full weights on a volume: four checkpoints with falling loss"

history=$(get finetunehistory capitals -o json)
jq -e '[.spec.series[] | select(.name == "loss") | .steps | length] == [40]' <<<"$history" >/dev/null || fail "the loss history has not one point a logged step"
jq -e '.spec.logs[0].lines | length > 5' <<<"$history" >/dev/null || fail "the log tail is not in the history"
pass "the history holds the loss of every logged step, and the log"

import_of() { # STEP: a Checkpoint written by hand over the files of that step of the demo run
  get checkpoint "capitals-step-$1" -o json |
    jq '{apiVersion, kind, metadata: {name: "imported-\(.spec.step)"}, spec: (.spec | {step, baseModel, format, storage})}'
}
gone=$(import_of 50)
import_of 100 | kubectl apply -n "$ns" -f - >/dev/null
kubectl wait -n "$ns" --for=jsonpath='{.status.phase}'=Ready checkpoint/imported-100 --timeout=120s >/dev/null
[[ $(get checkpoint imported-100 -o jsonpath='{.status.digest}') == "$(get checkpoint capitals-step-100 -o jsonpath='{.status.digest}')" ]] ||
  fail "an import of the same files has another digest"
pass "a Checkpoint written by hand is verified by a Job before it is Ready"

kubectl delete -n "$ns" checkpoint capitals-step-50 --wait --timeout=120s >/dev/null
kubectl apply -n "$ns" -f - <<<"$gone" >/dev/null
kubectl wait -n "$ns" --for=jsonpath='{.status.phase}'=Missing checkpoint/imported-50 --timeout=120s >/dev/null || fail "the files of a deleted checkpoint are still there"
kubectl delete -n "$ns" checkpoint imported-50 imported-100 --wait --timeout=60s >/dev/null
kubectl wait -n "$ns" --for=jsonpath='{.status.checkpointCount}'=3 finetune/capitals --timeout=60s >/dev/null
pass "deleting a checkpoint removes its files, and no others"

state=$(dirname "$KUBECONFIG")
# shellcheck source=/dev/null
source "$state/env"
endpoint=$NODE_IP:5555
"$root/hack/s3.sh" start "$endpoint" checkpoints >/dev/null
(cd "$root" && S3_ENDPOINT=http://$endpoint S3_BUCKET=checkpoints cargo test --quiet --test object_store)
pass "the agent's store works against a real server: multipart, checksums, removal"
sed "s|@ENDPOINT@|http://$endpoint|" "$root/tests/e2e/lora-to-s3.yaml" | kubectl apply -n "$ns" -f -
kubectl apply -n "$ns" -f "$root/tests/e2e/no-such-data.yaml"

finished no-such-data
[[ $(get finetunes no-such-data -o jsonpath='{.status.failure.reason}') == DatasetInvalid ]] || fail "a missing dataset is not DatasetInvalid"
[[ $(get pods -l finetune.dev/fine-tune=no-such-data --no-headers | wc -l) == 1 ]] || fail "a missing dataset was tried again"
get finetunes no-such-data -o jsonpath='{.status.failure.message}{"\n"}'
pass "a dataset that is not there is DatasetInvalid, at the first try"

finished lora
[[ $(phase lora) == Succeeded ]] || fail "the LoRA run is $(phase lora)"
checkpoints_are_good lora Adapter
[[ $(get checkpoint lora-step-200 -o jsonpath='{.status.adapter.rank}') == 16 ]] || fail "the rank of the adapter is not known"
objects() { curl -sf "http://$endpoint/checkpoints?prefix=team-a/&list-type=2" | grep -o '<Key>[^<]*</Key>' | wc -l || true; }
(($(objects) > 20)) || fail "the bucket holds $(objects) objects"
pass "LoRA into an object store: four adapters of rank 16"

kubectl delete -n "$ns" finetunes capitals --wait=true --timeout=120s
sed 's/^metadata: .*/metadata: {name: alone}/' "$root/hack/demo/capitals.yaml" | kubectl apply -n "$ns" -f -
kubectl wait -n "$ns" --for=jsonpath='{.status.phase}'=Preparing finetune/alone --timeout=60s >/dev/null
kubectl scale -n finetune-system deployment/finetune-operator --replicas=0 >/dev/null
job=$(get finetunes alone -o jsonpath='{.status.jobName}')
kubectl wait -n "$ns" --for=condition=Complete "job/$job" --timeout=600s >/dev/null
kubectl delete -n "$ns" pod -l "job-name=$job" --wait >/dev/null
[[ $(get checkpoints -l finetune.dev/fine-tune=alone --no-headers 2>/dev/null | wc -l) == 0 ]] || fail "somebody made checkpoints without an operator"
kubectl scale -n finetune-system deployment/finetune-operator --replicas=1 >/dev/null
finished alone
[[ $(phase alone) == Succeeded ]] || fail "the run without an operator is $(phase alone)"
checkpoints_are_good alone Model
pass "an operator that was away finds every checkpoint of a run whose pod is gone"

kubectl delete -n "$ns" finetunes --all --wait=true --timeout=180s
kubectl wait -n "$ns" --for=delete jobs,checkpoints,finetunehistories,pods -l finetune.dev/fine-tune --timeout=60s >/dev/null
kubectl wait -n "$ns" --for=delete pvc -l finetune.dev/fine-tune --timeout=60s >/dev/null
left=$(get jobs,pods,checkpoints,finetunehistories,finetunes,pvc -o name 2>/dev/null)
[[ $left == persistentvolumeclaim/assets ]] || fail "deletion leaves: $left"
[[ $(objects) == 0 ]] || fail "deletion leaves $(objects) objects in the bucket"
pass "deleting the runs leaves no object, no claim and no byte"

restarts=$(kubectl get pods -n finetune-system -o jsonpath='{.items[*].status.containerStatuses[*].restartCount}')
[[ $restarts =~ ^[0\ ]*$ ]] || fail "the operator restarted: $restarts"
echo "$passed passed, 0 failed"
