# Checkpoints that are served, and answer: the demo's own from a volume, and the adapter that lies in the object store.

serve() { # NAME CHECKPOINT RUNTIME: the demo's Deployment under another name
  kubectl create --dry-run=client -o json -f "$root/hack/demo/deployment.yaml" |
    jq "del(.metadata.namespace) | .metadata.name = \"$1\" | .spec.checkpoint.name = \"$2\" | .spec.runtime.name = \"$3\"" | kubectl apply -n "$ns" -f - >/dev/null
}
serving() { kubectl wait -n "$ns" --for=condition=Ready "deployments.finetune.dev/$1" --timeout=300s >/dev/null || fail "$1 does not serve"; }
ask() { "$root/hack/demo/ask.sh" "$ns" "$1" 'What is the capital of France?' "${@:2}"; }
pods_of() { get pods -l "finetune.dev/deployment=$1" -o name; }

serve adapter lora-step-200 transformers
answer=$(ask capitals) other=$(ask untrained)
[[ $answer == *Paris* ]] || fail "the demo's model answers: $answer"
[[ $other != *Paris* ]] || fail "the untrained model knows it too"
if ask capitals capitals-step-50 2>/dev/null; then fail "the server answers to a name that is not its own"; fi
pass "full weights from a volume answer to their name, and to no other: $answer"

serving adapter
answer=$(ask adapter)
[[ $answer == *Paris* ]] || fail "the merged adapter answers: $answer"
pass "an adapter from the object store, merged into its base from a volume, answers: $answer"

# A server that ends as soon as it starts.
kubectl get servingruntime transformers -o json |
  jq '{apiVersion, kind, metadata: {name: "broken"}, spec: (.spec | .model.command = ["transformers", "serve", "/no/such/folder"])}' | kubectl apply -f - >/dev/null
serve broken capitals-step-100 broken
seen=$(mktemp)
kubectl get -n "$ns" deployments.finetune.dev broken --watch -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}{"\n"}' >"$seen" &
watch=$!
kubectl wait -n "$ns" --for=condition=Stalled deployments.finetune.dev/broken --timeout=180s >/dev/null || fail "a server that crashes is not Stalled"
restarts=$(get pods -l finetune.dev/deployment=broken -o jsonpath='{.items[*].status.containerStatuses[*].restartCount}')
((restarts < 2)) || fail "it took $restarts restarts to say that the server crashes"
failure=$(get deployments.finetune.dev broken -o json | jq -c '[.status.phase, .status.failure.reason, .status.failure.exitCode]')
[[ $failure == '["Failed","ServerFailed",1]' ]] || fail "a server that crashes is $failure"
words=$(get deployments.finetune.dev broken -o jsonpath='{.status.failure.message}')
[[ $words == *no/such/folder* ]] || fail "the server's last words are not told: $words"
kubectl wait -n "$ns" --for=jsonpath='{.status.containerStatuses[0].restartCount}'=2 "$(pods_of broken)" --timeout=180s >/dev/null
kill "$watch"
wait "$watch" 2>/dev/null || true
if grep -q True "$seen"; then fail "a server that crashes was Ready"; fi
[[ $(get deployments.finetune.dev broken -o jsonpath='{.status.phase}') == Failed ]] || fail "it is not Failed any more after two restarts"
pass "a server that crashes is Failed before its second restart, with its last words: ${words##*$'\n'}"

# Another checkpoint under the same name, while somebody asks all the time.
roll() { # DEPLOYMENT SPEC: edits it, and waits until it serves so and the pods before are gone
  local before
  before=$(pods_of "$1")
  kubectl patch -n "$ns" deployments.finetune.dev "$1" --type=merge -p "{\"spec\": $2}" >/dev/null
  serving "$1"
  # shellcheck disable=SC2086
  kubectl wait -n "$ns" --for=delete $before --timeout=120s >/dev/null
}
roll capitals '{"modelName": "bot"}'
address=$(get service capitals -o jsonpath='{.spec.clusterIP}:{.spec.ports[0].port}')
question='{"model": "bot", "max_tokens": 16, "messages": [{"role": "user", "content": "What is the capital of France?"}]}'
asking=$(mktemp) answers=$(mktemp)
while [[ -e $asking ]]; do
  curl -sSf --max-time 60 -H 'Content-Type: application/json' -d "$question" "http://$address/v1/chat/completions" | jq -r '.choices[0].message.content' || echo lost
done >"$answers" 2>&1 &
client=$!
roll capitals '{"checkpoint": {"name": "capitals-step-150"}}'
rm "$asking"
wait "$client"
[[ $(get "$(pods_of capitals)" -o jsonpath='{.metadata.annotations.finetune\.dev/checkpoint}') == capitals-step-150 ]] || fail "the new checkpoint is not what is served"
if grep -qv Paris "$answers"; then fail "of $(wc -l <"$answers") requests these were lost:"$'\n'"$(grep -v Paris "$answers")"; fi
(($(wc -l <"$answers") > 20)) || fail "only $(wc -l <"$answers") requests were made during the rollout"
pass "another checkpoint under the same name loses none of $(wc -l <"$answers") requests"

kubectl scale -n "$ns" deployments.finetune.dev capitals --replicas=0 >/dev/null
kubectl wait -n "$ns" --for=jsonpath='{.status.conditions[?(@.type=="Ready")].reason}'=ScaledToZero deployments.finetune.dev/capitals --timeout=60s >/dev/null
kubectl wait -n "$ns" --for=delete pods -l finetune.dev/deployment=capitals --timeout=120s >/dev/null
kubectl scale -n "$ns" deployments.finetune.dev capitals --replicas=1 >/dev/null
serving capitals
[[ $(ask capitals) == *Paris* ]] || fail "after a rest it answers: $(ask capitals)"
pass "no replica, and back"

kubectl delete -n "$ns" deployments.finetune.dev --all --timeout=60s >/dev/null
kubectl wait -n "$ns" --for=delete deployments.apps,replicasets,services,endpointslices,pods -l finetune.dev/role=serve --timeout=120s >/dev/null
kubectl delete servingruntime broken >/dev/null
kubectl delete -n "$ns" checkpoint untrained --wait --timeout=60s >/dev/null
left=$(get deployments.finetune.dev,deployments.apps,replicasets,services,endpointslices,pods -l finetune.dev/role=serve -o name 2>/dev/null)
[[ -z $left ]] || fail "deletion leaves: $left"
has_checkpoint capitals-step-150
pass "deleting what serves leaves nothing but the checkpoints"
