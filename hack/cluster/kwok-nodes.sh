# shellcheck shell=bash
# Simulated nodes, run by kwok. manifests/kwok-stages.yaml says how their pods live and die.

kwok_node() { # NAME
  cat <<END
---
apiVersion: v1
kind: Node
metadata:
  name: $1
  annotations: {kwok.x-k8s.io/node: fake}
  labels:
    kubernetes.io/hostname: $1
    kubernetes.io/os: linux
    kubernetes.io/arch: amd64
    nvidia.com/gpu.present: "true"
status:
  capacity: &size {cpu: "64", memory: 512Gi, pods: "1000", nvidia.com/gpu: "8"}
  allocatable: *size
END
}

start_kwok_nodes() { # COUNT
  local index
  start_process kwok "$BIN/kwok" --kubeconfig "$PKI/kwok.kubeconfig" --config "$HERE/manifests/kwok-stages.yaml" \
    --manage-all-nodes=false --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake \
    --node-lease-duration-seconds 40 --cidr 10.64.0.1/11 --node-ip "$NODE_IP" --server-address "127.0.0.1:$KWOK_PORT"
  kubectl apply -f "$HERE/manifests/storage-kwok.yaml" >/dev/null
  if (($1 == 0)); then return; fi
  for index in $(seq "$1"); do kwok_node "kwok-$index"; done | kubectl apply -f - >/dev/null
  wait_for 120 kwok "$1 kwok nodes are ready" kubectl wait node --all --for condition=Ready --timeout 60s
}

# What the simulated volumes left on this machine: one empty directory each.
remove_kwok_volumes() {
  local path
  for path in $(kubectl get pv -o jsonpath='{.items[*].spec.hostPath.path}' --request-timeout 5s 2>/dev/null); do
    if [[ $path == /tmp/hostpath_pv/* ]]; then rm -rf "$path"; fi
  done
  rmdir /tmp/hostpath_pv 2>/dev/null || true
}
