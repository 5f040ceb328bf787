#!/usr/bin/env bash
# Starts a Kubernetes cluster on this machine, without a container engine.
#
#   up.sh [--name NAME] [--nodes real | kwok:N]
#
#   --name NAME      several clusters can run side by side (local)
#   --nodes real     one real node with containerd, 8 pretended GPUs, DNS and volumes; needs root, one per machine (the default)
#   --nodes kwok:N   N simulated nodes of 8 GPUs, 64 CPUs and 512Gi each; pods obey the annotations described in
#                    manifests/kwok-stages.yaml. No root needed. kwok:0 is a bare control plane.
#
# Running it twice is harmless: what is up stays up, what died is started again. Builds what is missing first (build.sh).
# DURABLE=1 makes etcd sync to disk; without it a power cut may lose the cluster, and figures are not honest.
#
#   hack/cluster/up.sh --nodes kwok:3
#   export KUBECONFIG=$(hack/cluster/kubeconfig.sh) PATH=$(hack/cluster/build.sh --bin):$PATH
#   kubectl get nodes
#   hack/cluster/down.sh
#
# Logs, audit.log and data lie under ${XDG_STATE_HOME:-~/.local/state}/finetune-operator/NAME.

set -euo pipefail
source "$(dirname "$0")/lib.sh"
source "$HERE/control-plane.sh"
source "$HERE/kwok-nodes.sh"
source "$HERE/real-node.sh"

name=local nodes=real
while (($#)); do
  case $1 in
    --name) name=$2 && shift 2 ;;
    --nodes) nodes=$2 && shift 2 ;;
    -h | --help) usage ;;
    *) usage 2 >&2 ;;
  esac
done
[[ $nodes == real || $nodes =~ ^kwok:[0-9]+$ ]] || die "--nodes is real or kwok:N, not '$nodes'"

node_ip() { # the address this machine reaches others from
  local ip
  ip=$({ ip -4 route get 192.0.2.1 || hostname -I; } 2>/dev/null | sed -nE 's/.* src ([0-9.]+).*/\1/p; s/^([0-9.]+) .*/\1/p' | head -n 1)
  echo "${ip:-127.0.0.1}"
}

record_cluster() { # what later runs and the other scripts need to know
  local base variable index=0
  base=$(free_port_base)
  mkdir -p "$STATE"
  {
    echo "NODES=$nodes"
    echo "NODE_NAME=$NAME"
    echo "NODE_IP=$(node_ip)"
    echo "PORT_BASE=$base"
    for variable in APISERVER ETCD ETCD_PEER CONTROLLER_MANAGER SCHEDULER KWOK DNS KUBELET_HEALTH PROXY_HEALTH PROXY_METRICS \
      KUEUE_WEBHOOK KUEUE_VISIBILITY; do
      echo "${variable}_PORT=$((base + index++))"
    done
  } >"$STATE/env.new"
  mv "$STATE/env.new" "$STATE/env"
}

use_cluster "$name"
if [[ $nodes == real ]]; then "$HERE/build.sh"; else "$HERE/build.sh" control-plane; fi
need_commands openssl=openssl
lock_cluster
if [[ ! -f $STATE/env ]]; then
  if [[ $nodes == real ]]; then need_node_packages && refuse_second_node; fi
  exec 8>"$(state_root)/ports.lock"
  flock 8
  record_cluster
  exec 8>&-
  use_cluster "$name"
fi
[[ $NODES == "$nodes" ]] || die "cluster $NAME exists with --nodes $NODES; take it down first, or choose another --name"

"$HERE/pki.sh" "$STATE" "$NODE_NAME" "$NODE_IP" "$APISERVER_PORT"
start_control_plane
if [[ $NODES == real ]]; then start_real_node; else start_kwok_nodes "${NODES#kwok:}"; fi
log "cluster $NAME is up: export KUBECONFIG=$KUBECONFIG"
