# A checkpoint of the demo in a namespace of somebody else: refused, then served from its exporter and answering, and gone with the permission.

theirs=borrower
kubectl create namespace "$theirs" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
kubectl label namespace "$theirs" pod-security.kubernetes.io/enforce=restricted --overwrite >/dev/null
at() { kubectl "$1" -n "$theirs" "${@:2}"; }
borrow() { # CHECKPOINT: the demo's Deployment there, of that checkpoint here
  kubectl create --dry-run=client -o json -f "$root/hack/demo/deployment.yaml" |
    jq "del(.metadata.namespace) | .metadata.name = \"borrowed\" | .spec.checkpoint = {name: \"$1\", namespace: \"$ns\"}" | at apply -f - >/dev/null
}
refused() { at wait --for=jsonpath='{.status.failure.reason}'=NotPermitted deployments.finetune.dev/borrowed --timeout=60s >/dev/null || fail "$1"; }
words() { at get deployments.finetune.dev borrowed -o jsonpath='{.status.failure.message}'; }

borrow no-such-checkpoint
refused "a checkpoint of another namespace is not refused"
missing=$(words)
borrow capitals-step-200
at wait --for=jsonpath='{.status.observedGeneration}'=2 deployments.finetune.dev/borrowed --timeout=60s >/dev/null
refused "a checkpoint of another namespace is not refused"
[[ $(words) == "${missing/no-such-checkpoint/capitals-step-200}" ]] || fail "it is told whether a checkpoint exists: $missing / $(words)"
[[ -z $(at get deployments.apps,pods,services -l finetune.dev/role=serve -o name) ]] || fail "something was made without permission"
[[ -z $(get deployments.apps -l finetune.dev/role=export -o name) ]] || fail "there is an exporter without permission"
pass "without permission it is refused, and not told what exists"

jq -n "{apiVersion: \"finetune.dev/v1alpha1\", kind: \"CheckpointPermission\", metadata: {name: \"to-borrower\"},
  spec: {fineTune: {name: \"capitals\"}, project: \"$theirs\"}}" | kubectl apply -n "$ns" -f - >/dev/null
at wait --for=condition=Ready deployments.finetune.dev/borrowed --timeout=300s >/dev/null || {
  kubectl describe pods -n "$theirs" >&2
  kubectl logs -n "$theirs" -l finetune.dev/role=serve --all-containers --prefix --tail=40 >&2
  fail "a permitted checkpoint is not served"
}
answer=$("$root/hack/demo/ask.sh" "$theirs" borrowed 'What is the capital of France?')
[[ $answer == *Paris* ]] || fail "the borrowed model answers: $answer"
[[ $(get pods -l finetune.dev/role=export -o name | wc -l) == 1 ]] || fail "there is not one exporter"
[[ -z $(at get pvc,secrets -o name) ]] || fail "the owner's claims or secrets came along"
pass "with a permission it is served from one exporter, and answers: $answer"

kubectl delete -n "$ns" checkpointpermission to-borrower >/dev/null
refused "a permission that was taken back is not said"
at wait --for=delete deployments.apps,services,pods -l finetune.dev/role=serve --timeout=120s >/dev/null
kubectl wait -n "$ns" --for=delete deployments.apps,services,pods -l finetune.dev/role=export --timeout=120s >/dev/null
[[ $(at get events -o json) == *"CheckpointPermission"* ]] || fail "no Event says why"
kubectl delete namespace "$theirs" --timeout=120s >/dev/null
has_checkpoint capitals-step-200
pass "without the permission the workload, its Service and the exporter are gone, and the checkpoint is not"
