# The operator is killed (-9) right after some of its writes to a real run, or after each of them with CRASHES=all: every run ends as one that
# nobody disturbed, with the same objects made.

audit=$(dirname "$KUBECONFIG")/audit.log
tail_of_audit=$(mktemp)
writes='"stage":"ResponseComplete".*"verb":"(create|patch|update|delete)".*"username":"system:serviceaccount:finetune-system:finetune-operator".*"namespace":"'$ns'".*"code":20[01]'

kill_after() { # N: kills the operator after its Nth write from now on
  { tail -n 0 -F "$audit" 2>/dev/null & echo $! >"$tail_of_audit"; } | grep --line-buffered -E "$writes" | head -n "$1" >/dev/null
  kill "$(cat "$tail_of_audit")"
  pkill -9 -f '^/usr/local/bin/finetune-operator controller'
  # A new pod, so that the kubelet does not wait before it starts the container again.
  kubectl delete pod -n finetune-system -l app.kubernetes.io/component=controller --grace-period=0 --force >/dev/null 2>&1
}

story() { # RUN FIRST_LINE: how it ended, and what was made for it since that line of the audit log; a Job that reads again what a last report
  # told too late (…-c) is a matter of time, and changes nothing
  get finetune "$1" -o json | jq -c '[.status.phase, .status.attempt, .status.checkpointCount, .status.bestCheckpoint, .status.progress.step]'
  get checkpoints -l "finetune.dev/fine-tune=$1" -o json | jq -c '[.items[] | [.metadata.name, .status.phase, .status.best // false]] | sort'
  get finetunehistory "$1" -o json | jq -c '[.spec.series[] | [.name, (.steps | length)]]'
  tail -n "+$2" "$audit" | grep -E "$writes" | jq -r 'select((.verb | IN("create", "delete")) and .objectRef.resource != "events" and (.objectRef.name | endswith("-c") | not)) |
    "\(.verb) \(.objectRef.resource) \(.objectRef.name)"' | sed "s/$(get finetune "$1" -o jsonpath='{.metadata.uid}' | cut -c1-8)/UID/" | sort
}

told() { # [N]: a run from its creation to its end, the operator killed after its Nth write
  local first killer=
  first=$(($(wc -l <"$audit") + 1))
  if [[ -n ${1:-} ]]; then kill_after "$1" & killer=$!; fi
  apply_run crash
  finished crash
  if [[ -n $killer ]]; then
    if kill -0 "$killer" 2>/dev/null && [[ -s $tail_of_audit ]]; then kill "$(cat "$tail_of_audit")" 2>/dev/null || true; fi
    wait "$killer" || true
    kubectl rollout status -n finetune-system deployment/finetune-operator --timeout=120s >/dev/null
  fi
  kubectl wait -n "$ns" --for=jsonpath='{.status.best}'=true checkpoint/crash-step-200 --timeout=60s >/dev/null
  kubectl wait -n "$ns" --for=jsonpath='{.status.checkpointCount}'=4 finetune/crash --timeout=60s >/dev/null
  story crash "$first"
  kubectl delete -n "$ns" finetune crash --wait --timeout=120s >/dev/null
  "$root/hack/cluster/volumes.sh" --name "$CLUSTER" >/dev/null 2>&1
}

begin=$(($(wc -l <"$audit") + 1))
expected=$(told)
count=$(tail -n "+$begin" "$audit" | grep -cE "$writes")
if [[ ${CRASHES:-} == all ]]; then points=$(seq "$count"); else points=$(printf '%s\n' 2 $((count / 3)) $((count / 2)) | sort -un); fi
wrong=0
for point in $points; do
  if difference=$(diff <(echo "$expected") <(told "$point")); then continue; fi
  wrong=$((wrong + 1))
  echo "killed after write $point:"$'\n'"$difference" >&2
done
echo "$(wc -w <<<"$points") crash points run, $wrong failed"
((wrong == 0)) || fail "a crash changes how a run ends"
pass "the operator killed after write $(xargs <<<"$points") of a real run changes nothing in the end"
