#!/usr/bin/env bash
# Lets a process outside a cluster be the operator there: installs the kinds and the RBAC that ship, and makes a kubeconfig with a token of the
# operator's own ServiceAccount, so that RBAC holds as in production. Prints the environment of what tests or measures that operator.
#
#   as-operator.sh [--name NAME]
#
#   environment=$(hack/cluster/as-operator.sh --name it)
#   eval "$environment"

set -euo pipefail
source "$(dirname "$0")/lib.sh"

take_name "$@"
use_cluster "$name"
[[ -f $KUBECONFIG ]] || die "cluster $NAME is not up; start it with up.sh --name $NAME"
root=$(cd "$HERE/../.." && pwd)
operator=$STATE/operator.kubeconfig

install_kinds_and_rbac() {
  local base=$root/deploy/base
  kubectl apply --server-side -k "$root/crds"
  kubectl kustomize "$root/crds" | kubectl wait --for=condition=Established -f -
  kubectl apply --server-side -f "$base/namespace.yaml" -f "$base/serviceaccount.yaml" -f "$base/rbac.yaml"
}

of_account() { # FIELD of the metadata of the operator's ServiceAccount
  kubectl get -f "$root/deploy/base/serviceaccount.yaml" -o jsonpath="{.metadata.$1}"
}

write_kubeconfig() { # the admin's way to the cluster, with the operator's token
  local token user
  token=$(kubectl create token -n "$(of_account namespace)" "$(of_account name)" --duration 24h)
  (umask 077 && kubectl config view --raw --minify --flatten >"$operator")
  user=$(kubectl --kubeconfig "$operator" config view -o jsonpath='{.users[0].name}')
  kubectl --kubeconfig "$operator" config delete-user "$user"
  kubectl --kubeconfig "$operator" config set-credentials "$user" --token "$token"
}

install_kinds_and_rbac >/dev/null
write_kubeconfig >/dev/null
printf 'export %s=%q\n' \
  PATH "$BIN:$PATH" \
  KUBECONFIG "$KUBECONFIG" \
  FINETUNE_IT_KUBECONFIG "$KUBECONFIG" \
  FINETUNE_IT_OPERATOR_KUBECONFIG "$operator" \
  FINETUNE_IT_AUDIT_LOG "$STATE/audit.log" \
  FINETUNE_IT_NAMESPACE "$(of_account namespace)"
