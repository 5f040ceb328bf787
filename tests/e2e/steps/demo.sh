# The demo's own run: full weights on a volume.

[[ $(phase capitals) == Succeeded ]] || fail "the demo run is $(phase capitals)"
checkpoints_are_good capitals Model
pass "full weights on a volume: four checkpoints with falling loss"

history=$(get finetunehistory capitals -o json)
jq -e '[.spec.series[] | select(.name == "loss") | .steps | length] == [40]' <<<"$history" >/dev/null || fail "the loss history has not one point a logged step"
jq -e '.spec.logs[0].lines | length > 5' <<<"$history" >/dev/null || fail "the log tail is not in the history"
pass "the history holds the loss of every logged step, and the log"
