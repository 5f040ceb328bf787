# LoRA, with checkpoints in the object store.

sed "s|@ENDPOINT@|http://$endpoint|" "$root/tests/e2e/lora-to-s3.yaml" | kubectl apply -n "$ns" -f - >/dev/null
finished lora
[[ $(phase lora) == Succeeded ]] || fail "the LoRA run is $(phase lora)"
checkpoints_are_good lora Adapter
[[ $(get checkpoint lora-step-200 -o jsonpath='{.status.adapter.rank}') == 16 ]] || fail "the rank of the adapter is not known"
(($(objects) > 20)) || fail "the bucket holds $(objects) objects"
pass "LoRA into an object store: four adapters of rank 16"
