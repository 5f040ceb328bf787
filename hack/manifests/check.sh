#!/usr/bin/env bash
# Checks everything that ships as YAML: lints and renders the chart with both Helm majors, builds the kustomizations, and compares
# what the two give, object by object.
#
#   check.sh
#
# HELM (Helm 4), HELM3 and KUBECTL are the programs; the local cluster's when unset. With SERVER=1 the result is also put to the API
# server of the current context by a dry run; the kinds must be installed there.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$("$root/hack/cluster/build.sh" --bin)
HELM=${HELM:-$bin/helm} HELM3=${HELM3:-$bin/helm3} KUBECTL=${KUBECTL:-$bin/kubectl}
chart=$root/charts/finetune-operator
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { printf '%s\n' "$*" >&2; }

every_option=(
  --set 'replicas=2,operator.watchNamespaces[0]=a,operator.watchNamespaces[1]=b,networkPolicy.enabled=true,serviceMonitor.enabled=true,prometheusRule.enabled=true,grafanaDashboard.enabled=true'
  --set 'gateway.enabled=true,gateway.autoscaling.enabled=true,gateway.ingress.enabled=true,gateway.httpRoute.enabled=true'
  --set 'extraObjects[0].apiVersion=v1,extraObjects[0].kind=ConfigMap,extraObjects[0].metadata.name=more'
)
for helm in "$HELM" "$HELM3"; do
  step "lint and template with $(basename "$helm") $("$helm" version --short)"
  "$helm" lint --strict --quiet "$chart"
  "$helm" template finetune-operator "$chart" --namespace finetune-system --kube-version 1.33.0 >"$work/first.yaml"
  "$helm" template finetune-operator "$chart" --namespace finetune-system --kube-version 1.33.0 "${every_option[@]}" >"$work/every.yaml"
  "$helm" template finetune-operator "$chart" --namespace finetune-system --kube-version 1.33.0 \
    --api-versions finetune.dev/v1alpha1/TrainingRuntime --set gateway.enabled=true >"$work/chart.yaml"
  if "$helm" template x "$chart" --kube-version 1.33.0 --set replicas=two >/dev/null 2>&1; then
    step "error: values.schema.json let replicas=two pass" && exit 1
  fi
done

step "deploy/base and deploy/gateway are what the chart renders"
mkdir "$work/rendered"
HELM=$HELM "$root/hack/manifests/render.sh" "$work/rendered"
for file in base/operator base/catalogue gateway/gateway; do
  diff -u "$root/deploy/$file.yaml" "$work/rendered/${file#*/}.yaml" || { step "run hack/manifests/render.sh" && exit 1; }
done

step "kustomizations"
for kustomization in crds deploy/base deploy/gateway deploy/overlays/*/; do
  "$KUBECTL" kustomize "$root/${kustomization#"$root"/}" >"$work/$(basename "$kustomization").yaml"
done

step "chart and kustomize give the same objects"
(cat "$work/base.yaml" && echo --- && cat "$work/gateway.yaml") >"$work/both.yaml"
python3 "$root/hack/manifests/compare.py" "$work/chart.yaml" "$work/both.yaml"

if [[ ${SERVER:-} == 1 ]]; then
  step "the server accepts them"
  "$KUBECTL" get namespace finetune-system >/dev/null 2>&1 || "$KUBECTL" create namespace finetune-system >/dev/null
  "$KUBECTL" apply --server-side --dry-run=server --force-conflicts -f "$work/both.yaml" >/dev/null
  "$KUBECTL" apply --server-side --dry-run=server --force-conflicts -n default -f "$root/deploy/samples" >/dev/null
fi
step "manifests are in order"
