# Of ten saves the newest two and the best one stay, while the run still trains.

apply_run few '.spec.parameters += {epochs: 10} | .spec.checkpoints = {keepLast: 2, keepBest: 1}'
finished few
[[ $(phase few) == Succeeded ]] || fail "the run with retention is $(phase few)"
best=$(get finetune few -o jsonpath='{.status.bestCheckpoint}')
stay=$(printf '%s\n' few-step-450 few-step-500 "$best" | sort -u)
for number in $(seq 50 50 500); do
  if grep -qx "few-step-$number" <<<"$stay"; then continue; fi
  kubectl wait -n "$ns" --for=delete "checkpoint/few-step-$number" --timeout=120s >/dev/null || fail "checkpoint $number is not retired"
done
left=$(get checkpoints -l finetune.dev/fine-tune=few -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}' | sort)
[[ $left == "$stay" ]] || fail "retention leaves"$'\n'"$left"$'\n'"instead of"$'\n'"$stay"
folder=$(folder_of few-step-500)
on_disk=$(find "${folder%/*}" -maxdepth 1 -name 'checkpoint-*' -type d | wc -l)
[[ $on_disk == "$(wc -l <<<"$left")" ]] || fail "$on_disk folders are left for $(wc -l <<<"$left") checkpoints"
pass "retention keeps the newest two and the best one, and their files alone"
