#!/usr/bin/env bash
# The official OpenAI client against the gateway, on a cluster with simulated nodes. Needs a Python 3 with venv, and PyPI.
#
#   openai-client.sh
#
# CLUSTER and KEEP mean what they mean to integration.sh.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/target/openai-client

[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet 'openai>=2,<4'
FINETUNE_IT_OPENAI_PYTHON=$venv/bin/python "$root/hack/test/integration.sh" the_official_client_is_content
