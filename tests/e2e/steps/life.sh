# A long run: stopped at a third, taken up again, its pod killed at two thirds, and finished. One point for each logged step, those of
# the trainer itself, and the model answers.

apply_run life '.spec.parameters += {epochs: 36, save_steps: 100, logging_steps: 10, eval_steps: 300}'
appears checkpoint/life-step-600
kubectl patch -n "$ns" finetune life --type=merge -p '{"spec": {"desiredState": "Stopped"}}' >/dev/null
finished life
[[ $(phase life) == Stopped ]] || fail "a stopped run is $(phase life)"
[[ -z $(get pods -l finetune.dev/fine-tune=life,finetune.dev/role=train -o name) ]] || fail "it is Stopped while a pod is left"
stopped_at=$(get finetune life -o jsonpath='{.status.latestCheckpoint}')
kubectl patch -n "$ns" finetune life --type=merge -p '{"spec": {"desiredState": "Running", "restarts": 1}}' >/dev/null
appears checkpoint/life-step-1200
resumed=$(get finetune life -o jsonpath='{.status.resumedFrom}')
[[ life-step-$resumed == "$stopped_at" ]] || fail "it was stopped at $stopped_at and resumed from $resumed"
pass "a run stopped at a third is resumed from $stopped_at"

pod=$(get pods -l finetune.dev/fine-tune=life,finetune.dev/role=train --field-selector status.phase=Running -o name)
kubectl delete -n "$ns" "$pod" --grace-period=1 --wait >/dev/null
finished life
[[ $(phase life) == Succeeded ]] || fail "the run whose pod was killed is $(phase life)"
kubectl wait -n "$ns" --for=condition=Ready finetune/life --timeout=1s >/dev/null || fail "a run that succeeded is not Ready"
[[ $(get jobs -l finetune.dev/fine-tune=life,finetune.dev/role=train -o name | wc -l) == 1 ]] || fail "a killed pod made another Job"
last=$(folder_of life-step-1800)
told=$(jq -c '[.log_history[] | select(.loss) | [.step, .loss]] | sort' "$last/trainer_state.json")
kept=$(get finetunehistory life -o json | jq -c '[.spec.series[] | select(.name == "loss") | [.steps, (.values | map(tonumber))] | transpose[]]')
[[ $(jq length <<<"$kept") == 180 ]] || fail "the history holds $(jq length <<<"$kept") points for 180 logged steps:"$'\n'"$told"$'\n'"$kept"
jq -en --argjson told "$told" --argjson kept "$kept" '
  ($told | map(.[0])) == ($kept | map(.[0])) and
  all(range($told | length); ($told[.][1] - $kept[.][1] | fabs) <= 1e-4 * ($told[.][1] | fabs) + 1e-6)' >/dev/null ||
  fail "the history differs from the trainer's own:"$'\n'"$told"$'\n'"$kept"
pass "a killed pod costs no point of the history: 180, equal to the trainer's"

answer=$("$root/hack/demo/run-in-image.sh" --bind "$last:model" --bind "$root/tests/e2e:e2e" -- \
  python3 /mnt/e2e/ask.py /mnt/model 'What is the capital of France?' 2>/dev/null)
[[ $answer == *Paris* ]] || fail "the model answers: $answer"
pass "the model answers:$answer"
