# Deletion leaves nothing behind.

kubectl delete -n "$ns" deployments.finetune.dev --all --cascade=foreground --timeout=120s >/dev/null
kubectl delete -n "$ns" checkpoint untrained --ignore-not-found --wait --timeout=60s >/dev/null
kubectl delete -n "$ns" finetunes --all --wait=true --timeout=180s >/dev/null
kubectl wait -n "$ns" --for=delete jobs,checkpoints,finetunehistories,pods -l finetune.dev/fine-tune --timeout=60s >/dev/null
kubectl wait -n "$ns" --for=delete pvc -l finetune.dev/fine-tune --timeout=60s >/dev/null
left=$(get jobs,pods,checkpoints,finetunehistories,finetunes,pvc -o name 2>/dev/null)
[[ $left == persistentvolumeclaim/assets ]] || fail "deletion leaves: $left"
[[ -z ${endpoint:-} || $(objects) == 0 ]] || fail "deletion leaves $(objects) objects in the bucket"
pass "deleting the runs leaves no object, no claim and no byte"
