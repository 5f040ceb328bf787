#!/usr/bin/env bash
# schemathesis against the API document of the gateway, with a real key on a cluster with simulated nodes. Needs a Python 3 with venv, and PyPI.
#
#   schemathesis.sh
#
# CLUSTER and KEEP mean what they mean to integration.sh. FINETUNE_IT_SEED chooses other requests. What it asks says schemathesis.toml.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/target/schemathesis

[[ -x $venv/bin/python ]] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement "$root/hack/test/schemathesis.txt"
FINETUNE_IT_SCHEMATHESIS=$venv/bin/schemathesis "$root/hack/test/integration.sh" the_document_holds_under_schemathesis
