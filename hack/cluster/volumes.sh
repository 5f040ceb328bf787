#!/usr/bin/env bash
# Makes the real node's volumes, or makes used ones new again.
#
#   volumes.sh [--name NAME] [--count N]
#
# Provides N `local` PersistentVolumes (10) of 20Gi in StorageClass local. A volume whose claim was deleted is emptied and
# offered again; one in use is left alone. up.sh calls this; call it between tests that use up volumes.

set -euo pipefail
source "$(dirname "$0")/lib.sh"

name=local count=10
while (($#)); do
  case $1 in
    --name) name=$2 && shift 2 ;;
    --count) count=$2 && shift 2 ;;
    -h | --help) usage ;;
    *) usage 2 >&2 ;;
  esac
done
use_cluster "$name"
[[ ${NODES:-} == real ]] || die "cluster $name has no real node"

volume() { # NAME
  cat <<END
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: $1}
spec:
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteOnce, ReadOnlyMany, ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {path: $STATE/volumes/$1}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$NODE_NAME]}]
END
}

for released in $(kubectl get pv -o jsonpath='{.items[?(@.status.phase=="Released")].metadata.name}'); do
  [[ -d $STATE/volumes/$released ]] || continue
  kubectl delete pv "$released" --ignore-not-found >/dev/null
  rm -rf "${STATE:?}/volumes/$released"
  log "volume $released is empty again"
done
for index in $(seq "$count"); do
  mkdir -p "$STATE/volumes/local-$index"
  chmod 0777 "$STATE/volumes/local-$index"
  volume "local-$index"
done | kubectl apply -f - >/dev/null
