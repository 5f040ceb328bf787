# A dataset that is not there.

kubectl apply -n "$ns" -f "$root/tests/e2e/no-such-data.yaml" >/dev/null
finished no-such-data
[[ $(get finetunes no-such-data -o jsonpath='{.status.failure.reason}') == DatasetInvalid ]] || fail "a missing dataset is not DatasetInvalid"
[[ $(get pods -l finetune.dev/fine-tune=no-such-data --no-headers | wc -l) == 1 ]] || fail "a missing dataset was tried again"
get finetunes no-such-data -o jsonpath='{.status.failure.message}{"\n"}'
pass "a dataset that is not there is DatasetInvalid, at the first try"
