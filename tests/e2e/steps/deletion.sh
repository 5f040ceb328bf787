# One checkpoint goes, with its bytes and no others.

gone=$(folder_of capitals-step-50) kept=$(folder_of capitals-step-100)
kubectl delete -n "$ns" checkpoint capitals-step-50 --wait --timeout=120s >/dev/null
[[ ! -e $gone ]] || fail "the files of a deleted checkpoint are still there: $gone"
[[ -e $kept/model.safetensors ]] || fail "the files of another checkpoint are gone: $kept"
kubectl delete -n "$ns" checkpoint imported-100 --ignore-not-found --wait --timeout=60s >/dev/null
kubectl wait -n "$ns" --for=jsonpath='{.status.checkpointCount}'=3 finetune/capitals --timeout=60s >/dev/null
pass "deleting a checkpoint removes its files, and no others"
