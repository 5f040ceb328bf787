#!/usr/bin/env bash
# Asks a served model one question, through its Service and the API server's proxy, and prints the answer on one line.
#
#   ask.sh NAMESPACE DEPLOYMENT QUESTION [MODEL]
#
# MODEL is the name to ask for, else the one in the Deployment's status.

set -euo pipefail
namespace=$1 deployment=$2 question=$3
model=${4:-$(kubectl get -n "$namespace" deployments.finetune.dev "$deployment" -o jsonpath='{.status.modelName}')}

coproc proxy { exec kubectl proxy --port=0; }
# shellcheck disable=SC2154
trap 'kill "$proxy_PID" 2>/dev/null || true' EXIT
read -r _ _ _ _ address <&"${proxy[0]}" # Starting to serve on HOST:PORT

python3 - "http://$address/api/v1/namespaces/$namespace/services/$deployment:http/proxy/v1/chat/completions" "$model" "$question" <<'PYTHON'
import json
import sys
import urllib.error
import urllib.request

url, model, question = sys.argv[1:]
body = {"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": question}]}
request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
here = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    answer = json.load(here.open(request, timeout=120))["choices"][0]["message"]["content"]
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code}: {error.read().decode(errors='replace')}")
print("".join(c if c.isprintable() else " " for c in answer).strip())
PYTHON
