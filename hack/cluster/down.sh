#!/usr/bin/env bash
# Stops a cluster and deletes everything it kept: pods, volumes, data, logs.
#
#   down.sh [--name NAME]
#
# Stops only what up.sh started, by recorded pid, and returns when it is gone. Leaves no process, mount, link or firewall rule.

set -euo pipefail
source "$(dirname "$0")/lib.sh"
source "$HERE/kwok-nodes.sh"
source "$HERE/real-node.sh"

take_name "$@"

use_cluster "$name"
lock_cluster
if [[ ! -d $STATE ]]; then
  log "cluster $NAME is not up"
  exit
fi

stop_process kubelet
stop_process kube-proxy
stop_process coredns
if [[ ${NODES:-} == real ]]; then remove_real_node; fi
if [[ ${NODES:-} == kwok:* ]]; then remove_kwok_volumes; fi
stop_process kueue
stop_process kwok
stop_process kube-scheduler
stop_process kube-controller-manager
stop_process kube-apiserver
stop_process etcd
rm -rf --one-file-system "$STATE"
log "cluster $NAME is down"
