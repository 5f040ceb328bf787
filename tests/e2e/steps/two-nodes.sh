# One run on two nodes: two pods that find each other by name and train as one.

kubectl apply -n "$ns" -f "$root/tests/e2e/two-nodes.yaml" >/dev/null
finished two-nodes
[[ $(phase two-nodes) == Succeeded ]] || fail "the run on two nodes is $(phase two-nodes)"
checkpoints_are_good two-nodes Model
[[ $(get jobs -l finetune.dev/fine-tune=two-nodes,finetune.dev/role=train -o name | wc -l) == 1 ]] || fail "it took more than one attempt"
ranks=$(get pods -l finetune.dev/fine-tune=two-nodes,finetune.dev/role=train \
  -o jsonpath='{range .items[*]}{.metadata.annotations.batch\.kubernetes\.io/job-completion-index} {.status.phase}{"\n"}{end}' | sort)
[[ $ranks == $'0 Succeeded\n1 Succeeded' ]] || fail "its pods are:"$'\n'"$ranks"
points=$(get finetunehistory two-nodes -o json | jq '[.spec.series[] | select(.name == "loss") | .steps | length] | add')
[[ $points == 40 ]] || fail "the history holds $points points for 40 logged steps"
files=$(folder_of two-nodes-step-200)
[[ -f $files/rng_state_0.pth && -f $files/rng_state_1.pth ]] || fail "not both processes have saved their state: $(ls "$files")"
[[ -f ${files%/*}/logs/attempt-1.log && -f ${files%/*}/logs/attempt-1-node-1.log ]] || fail "not both nodes have left their log"
pass "two nodes train as one: four checkpoints, and the loss of every logged step once"

kubectl delete -n "$ns" finetune two-nodes --wait --timeout=180s >/dev/null
kubectl wait -n "$ns" --for=delete services -l finetune.dev/fine-tune=two-nodes --timeout=60s >/dev/null || fail "its Service is still there"
pass "the Service of a run goes with it"
