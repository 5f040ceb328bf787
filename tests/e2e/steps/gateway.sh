# The REST gateway, with nothing but the official OpenAI clients: a model is trained, shared, served and asked.

helm test finetune-operator --namespace finetune-system --timeout 2m >/dev/null || fail "helm test does not pass"
pass "the chart's own test: all is ready, and the API server takes a FineTune"

OPENAI_BASE_URL=$("$root/hack/demo/gateway.sh" url)/v1 OPENAI_API_KEY=$("$root/hack/demo/gateway.sh" key)
# The client for Node shares checkpoints with a key of its own only.
OPENAI_ADMIN_KEY=$OPENAI_API_KEY
export OPENAI_BASE_URL OPENAI_API_KEY OPENAI_ADMIN_KEY
clients=$root/target/openai-clients
mkdir -p "$clients"
[[ -x $clients/python/bin/python ]] || python3 -m venv "$clients/python"
"$clients/python/bin/pip" install --quiet 'openai>=2,<4'
cp "$root/tests/e2e/clients/openai_client.mjs" "$clients"
npm install --prefix "$clients" --no-save --no-fund --no-audit --silent 'openai@^7'
asked=(tiny-llama capitals 'What is the capital of France?' Paris)

read -r job served < <("$clients/python/bin/python" "$root/tests/e2e/clients/openai_client.py" "${asked[@]}") || fail "the Python client is not content"
pass "the official Python client trained $job, paused and resumed it, and was answered by $served"
answer=$(node "$clients/openai_client.mjs" "${asked[@]}" "$job" "$served") || fail "the Node client is not content"
pass "the official Node client did the same, and was answered: $answer"

kubectl logs -n finetune-system deployment/finetune-operator-gateway --tail=-1 | grep -qF "$OPENAI_API_KEY" && fail "the key is in the log of the gateway"
unset OPENAI_BASE_URL OPENAI_API_KEY OPENAI_ADMIN_KEY
made=$(get finetunes -o json | jq -r '.items[].metadata | select(.annotations["finetune.dev/created-by"] // "" | contains("demo-client")) | .name')
# shellcheck disable=SC2086
kubectl delete -n "$ns" finetunes $made --wait --timeout=180s >/dev/null
pass "what the clients made is gone again"
