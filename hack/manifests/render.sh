#!/usr/bin/env bash
# Renders the chart, with its default values, into deploy/base, and its REST gateway into deploy/gateway: the same objects for people who
# use kustomize. RBAC and CRDs are left out, for `finetune-operator generate` writes those.
#
#   render.sh            writes operator.yaml and catalogue.yaml of deploy/base, and deploy/gateway/gateway.yaml
#   render.sh DIRECTORY  writes them there instead
#
# HELM is the Helm 4 program; the local cluster's when unset.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
base=${1:-$root/deploy/base} gateway=${1:-$root/deploy/gateway}
HELM=${HELM:-$("$root/hack/cluster/build.sh" --bin)/helm}

render() { # TEMPLATE…: as plain manifests, without what only Helm needs
  local template arguments=()
  for template in "$@"; do arguments+=(--show-only "templates/$template.yaml"); done
  echo "# rendered from the chart by hack/manifests/render.sh: change the chart, not this file"
  "$HELM" template finetune-operator "$root/charts/finetune-operator" --namespace finetune-system --kube-version 1.33.0 \
    --api-versions finetune.dev/v1alpha1/TrainingRuntime --set gateway.enabled=true "${arguments[@]}" |
    sed -e '/^# Source: /d' -e '/^ *helm\.sh\/chart: /d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' -e 's/[[:space:]]*$//' |
    sed '1{/^---$/d}'
}

render deployment services >"$base/operator.yaml"
render training-runtimes serving-runtimes hardware-profiles base-models >"$base/catalogue.yaml"
render gateway >"$gateway/gateway.yaml"
