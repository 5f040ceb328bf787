#!/usr/bin/env bash
# The demo: from a bare machine to a fine-tuned model that answers.
#
#   demo.sh up      builds what is missing, starts a local cluster, installs the operator, trains a model, shows its
#                   checkpoints, serves the best one beside the untrained model and asks both a question
#   demo.sh down    removes everything `up` made, but for the build cache
#
# CLUSTER=<name> gives the local cluster another name than `demo`.
# CONTEXT=<name> uses that kubectl context instead of a local cluster; the images named by OPERATOR_IMAGE and TRAINER_IMAGE must
# then be pullable there. Running `up` twice is harmless: the second time it trains and serves again.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cluster=${CLUSTER:-demo}
namespace=demo
system=finetune-system

operator_image=${OPERATOR_IMAGE:-docker.io/finetune/operator:demo}
trainer_image=${TRAINER_IMAGE:-docker.io/finetune/trainer:demo}

begin=$SECONDS
title=
step() { # TITLE: ends the step before and begins the next
  [[ -z $title ]] || printf '    %s took %d s\n' "$title" $((SECONDS - since))
  title=$1 since=$SECONDS
  printf '\n==> %s\n' "$title"
}

use_local_cluster() {
  step "local cluster (built once, then cached)"
  "$root/hack/cluster/build.sh"
  "$root/hack/cluster/up.sh" --name "$cluster" --nodes real
  "$root/hack/cluster/volumes.sh" --name "$cluster" >/dev/null
  KUBECONFIG=$("$root/hack/cluster/kubeconfig.sh" --name "$cluster")
  export KUBECONFIG
  step "operator image"
  operator_tar=$("$root/images/operator/build.sh" | tail -n 1)
  step "trainer image (built once, then cached)"
  trainer_tar=$("$root/images/trainer/build.sh" | tail -n 1)
  step "images into the node"
  load_once "$operator_tar" "$operator_image"
  load_once "$trainer_tar" "$trainer_image"
}

load_once() { # TAR REF: loads an image unless exactly this file was loaded into this cluster before
  local mark
  mark=${KUBECONFIG%/*}/loaded-$(sha256sum <<<"$2" | cut -c1-12)
  if [[ $(cat "$mark" 2>/dev/null) == "$(stat -c '%n %Y %s' "$1")" ]]; then return; fi
  "$root/hack/cluster/load-image.sh" --name "$cluster" "$1" "$2"
  stat -c '%n %Y %s' "$1" >"$mark"
}

use_context() {
  KUBECONFIG=$(mktemp)
  export KUBECONFIG
  # shellcheck disable=SC2064
  trap "rm -f '$KUBECONFIG'" EXIT
  KUBECONFIG=${OUTER_KUBECONFIG:-$HOME/.kube/config} kubectl config view --raw --minify --context="$CONTEXT" >"$KUBECONFIG"
  chmod 600 "$KUBECONFIG"
}

install_operator() {
  step "helm install"
  helm upgrade --install finetune-operator "$root/charts/finetune-operator" --namespace "$system" --create-namespace \
    --set image.repository="${operator_image%:*}" --set image.tag="${operator_image##*:}" \
    --values "$here/values.yaml" --set catalogue.trainerImage="$trainer_image" --set catalogue.transformersImage="$trainer_image" \
    --wait --timeout 5m >/dev/null
  # A new build under the same tag is a new operator.
  kubectl rollout restart -n "$system" deployment/finetune-operator deployment/finetune-operator-gateway >/dev/null
  kubectl rollout status -n "$system" deployment/finetune-operator --timeout=120s
  kubectl rollout status -n "$system" deployment/finetune-operator-gateway --timeout=120s
}

fill_world() {
  step "base model and data"
  assets=$("$here/assets.sh" | tail -n 1)
  kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
  kubectl label namespace "$namespace" --overwrite pod-security.kubernetes.io/enforce=restricted >/dev/null
  kubectl apply -n "$namespace" -f "$here/world.yaml"
  local mark
  mark=$(cd "$assets" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
  if [[ $(kubectl get -n "$namespace" pvc assets -o jsonpath='{.metadata.annotations.demo/filled}') != "$mark" ]]; then
    "$here/fill-claim.sh" "$namespace" "$assets" "$trainer_image"
    kubectl annotate -n "$namespace" --overwrite pvc assets "demo/filled=$mark" >/dev/null
  fi
}

watched() { # OBJECTS COMMAND…: shows how they change while the command waits
  local watch status=0
  # shellcheck disable=SC2086
  kubectl get -n "$namespace" $1 --watch &
  watch=$!
  "${@:2}" >/dev/null || status=$?
  kill "$watch" 2>/dev/null || true
  wait "$watch" 2>/dev/null || true
  return "$status"
}

train() {
  step "kubectl apply -f hack/demo/capitals.yaml"
  # What is served keeps its checkpoint, and with it the folder of the run before.
  kubectl delete -n "$namespace" deployments.finetune.dev capitals --ignore-not-found --cascade=foreground --timeout=180s
  kubectl delete -n "$namespace" finetunes capitals --ignore-not-found --wait --timeout=180s
  kubectl apply -n "$namespace" -f "$here/capitals.yaml"
  watched "finetunes capitals" kubectl wait -n "$namespace" --for=condition=Finished finetune/capitals --timeout=600s
  local phase
  phase=$(kubectl get -n "$namespace" finetunes capitals -o jsonpath='{.status.phase}')
  [[ $phase == Succeeded ]] || {
    kubectl describe -n "$namespace" finetunes capitals
    echo "the run ended as $phase" >&2
    exit 1
  }
}

show() {
  step "what is there now"
  kubectl get -n "$namespace" finetunes capitals -o wide
  echo
  kubectl get -n "$namespace" checkpoints -l finetune.dev/fine-tune=capitals --sort-by=.spec.step
}

serve() {
  step "kubectl apply -f hack/demo/deployment.yaml"
  local best
  best=$(kubectl get -n "$namespace" finetunes capitals -o jsonpath='{.status.bestCheckpoint}')
  sed "s/capitals-step-200/$best/" "$here/deployment.yaml" | kubectl apply -n "$namespace" -f -
  kubectl apply -n "$namespace" -f "$here/untrained.yaml"
  watched deployments.finetune.dev kubectl wait -n "$namespace" --for=condition=Ready --timeout=600s \
    deployments.finetune.dev/capitals deployments.finetune.dev/untrained || {
    kubectl describe -n "$namespace" deployments.finetune.dev
    echo "the models are not served" >&2
    exit 1
  }
}

ask() {
  local question='What is the capital of France?'
  step "$question"
  local before after
  before=$("$here/ask.sh" "$namespace" untrained "$question")
  after=$("$here/ask.sh" "$namespace" capitals "$question")
  printf 'untrained: %s\n capitals: %s\n' "$before" "$after"
}

rest() {
  step "the same objects through the REST gateway"
  local url key
  url=$("$here/gateway.sh" url 2>/dev/null) key=$("$here/gateway.sh" key)
  printf 'URL  %s\nkey  %s\n' "$url" "$key"
  [[ -z ${CONTEXT:-} ]] || return 0
  curl -sSf -H "Authorization: Bearer $key" "$url/v1/models" |
    python3 -c 'import json, sys; print("models it serves:", *(model["id"] for model in json.load(sys.stdin)["data"]))'
}

finish() {
  step "done"
  local with='' first
  # shellcheck disable=SC2016
  first='export KUBECONFIG=$(make -s kubeconfig) PATH=$(hack/cluster/build.sh --bin):$PATH'
  [[ -z ${CONTEXT:-} ]] || with=" CONTEXT=$CONTEXT" first="kubectl config use-context $CONTEXT"
  cat <<TEXT

The whole demo took $((SECONDS - begin)) s. Things to type next:

  $first
  hack/demo/ask.sh $namespace capitals 'Name the capital of Japan.'
  kubectl -n $namespace describe ft capitals            # conditions, attempts, cost, events
  kubectl -n $namespace get ckpt capitals-step-200 -o yaml
  kubectl -n $namespace get fth capitals -o yaml        # loss history and the last lines of the log

  curl -H "Authorization: Bearer \$(make -s api-key$with)" "\$(make -s gateway-url$with)/v1/fine_tuning/jobs"

  export OPENAI_BASE_URL=\$(make -s gateway-url$with)/v1 OPENAI_API_KEY=\$(make -s api-key$with)
  python3 -c 'import openai; print(openai.OpenAI().chat.completions.create(model="capitals-step-200",
    messages=[{"role": "user", "content": "What is the capital of Italy?"}]).choices[0].message.content)'   # pip install openai

\`make demo-down$with\` removes everything.
TEXT
}

up() {
  PATH=$("$root/hack/cluster/build.sh" --bin):$PATH
  export PATH
  if [[ -n ${CONTEXT:-} ]]; then use_context; else use_local_cluster; fi
  install_operator
  fill_world
  train
  show
  serve
  ask
  rest
  finish
}

down() {
  if [[ -z ${CONTEXT:-} ]]; then
    "$root/hack/cluster/down.sh" --name "$cluster"
    return
  fi
  PATH=$("$root/hack/cluster/build.sh" --bin):$PATH
  use_context
  kubectl delete -n "$namespace" deployments.finetune.dev --all --cascade=foreground --timeout=300s
  kubectl delete -n "$namespace" finetunes,checkpoints --all --wait --timeout=300s
  kubectl delete namespace "$namespace" --wait
  kubectl delete basemodel tiny-llama --ignore-not-found
  kubectl delete hardwareprofile demo demo-cpu --ignore-not-found
  helm uninstall finetune-operator --namespace "$system" --wait
}

case ${1:-} in
  up | down) "$1" ;;
  *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
