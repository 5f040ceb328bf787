#!/usr/bin/env bash
# The REST gateway of the demo, for scripts.
#
#   gateway.sh url    prints its URL. A cluster of your own (CONTEXT=<name>) does not let others reach its Services, so it is forwarded to
#                     this machine then; the command for that is said on stderr.
#   gateway.sh key    makes a key of ServiceAccount `demo-client`, which may do in namespace `demo` what an editor may, and prints it.
#                     It holds for a day.
#
#   curl -H "Authorization: Bearer $(make -s api-key)" "$(make -s gateway-url)/v1/models"

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PATH=$("$here/../cluster/build.sh" --bin):$PATH
namespace=demo system=finetune-system service=finetune-operator-gateway
kubectl=(kubectl)
if [[ -n ${CONTEXT:-} ]]; then
  kubectl+=(--context "$CONTEXT")
else
  KUBECONFIG=$("$here/../cluster/kubeconfig.sh" --name "${CLUSTER:-demo}")
  export KUBECONFIG
fi

url() {
  if [[ -n ${CONTEXT:-} ]]; then
    echo "first: kubectl --context $CONTEXT port-forward -n $system service/$service 8080:80" >&2
    echo http://localhost:8080
  else
    "${kubectl[@]}" get -n "$system" service "$service" -o jsonpath='http://{.spec.clusterIP}:{.spec.ports[0].port}{"\n"}'
  fi
}

key() {
  "${kubectl[@]}" create serviceaccount demo-client -n "$namespace" --dry-run=client -o yaml | "${kubectl[@]}" apply -f - >/dev/null
  "${kubectl[@]}" create rolebinding demo-client -n "$namespace" --clusterrole finetune-operator-edit --serviceaccount "$namespace:demo-client" \
    --dry-run=client -o yaml | "${kubectl[@]}" apply -f - >/dev/null
  "${kubectl[@]}" create token demo-client -n "$namespace" --duration 24h
}

case ${1:-} in
  url | key) "$1" ;;
  *) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
