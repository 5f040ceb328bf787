# The operator is away while a run of sixty saves trains, ends, and loses its pod.

kubectl delete -n "$ns" finetunes capitals --ignore-not-found --wait=true --timeout=120s >/dev/null
apply_run alone 'del(.spec.parameters.epochs) | .spec.parameters += {max_steps: 180, save_steps: 3, eval_steps: 90}'
reaches alone Preparing
kubectl scale -n finetune-system deployment/finetune-operator --replicas=0 >/dev/null
kubectl wait -n finetune-system --for=delete pod -l app.kubernetes.io/component=controller --timeout=60s >/dev/null
job=$(get finetunes alone -o jsonpath='{.status.jobName}')
kubectl wait -n "$ns" --for=condition=Complete "job/$job" --timeout=600s >/dev/null
kubectl delete -n "$ns" pod -l "job-name=$job" --wait >/dev/null
[[ $(get checkpoints -l finetune.dev/fine-tune=alone --no-headers 2>/dev/null | wc -l) == 0 ]] || fail "somebody made checkpoints without an operator"
kubectl scale -n finetune-system deployment/finetune-operator --replicas=1 >/dev/null
finished alone
[[ $(phase alone) == Succeeded ]] || fail "the run without an operator is $(phase alone)"
rows=$(get checkpoints -l finetune.dev/fine-tune=alone -o jsonpath='{range .items[*]}{.spec.step} {.status.phase}{"\n"}{end}' | sort -n)
[[ $rows == "$(seq -f '%g Ready' 3 3 180)" ]] || fail "the checkpoints are"$'\n'"$rows"
pass "an operator that was away finds all 60 checkpoints of a run whose pod is gone"
