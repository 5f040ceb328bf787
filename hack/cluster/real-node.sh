# shellcheck shell=bash
# One real node on this machine: containerd, kubelet, kube-proxy and CoreDNS, each a plain process.

NODE_POD_CIDR=10.244.0.0/24
DNS_IP=10.96.0.10
PAUSE_IMAGE=localhost/pause:$PAUSE_VERSION
# What kubelet and kube-proxy change in the kernel; down.sh puts the old values back.
SYSCTLS=(net.ipv4.ip_forward net.ipv4.conf.all.route_localnet vm.overcommit_memory kernel.panic kernel.panic_on_oops)

need_node_packages() {
  ((EUID == 0)) || die "a real node needs root; try --nodes kwok:3"
  need_commands containerd=containerd runc=runc iptables=iptables conntrack=conntrack socat=socat ethtool=ethtool ip=iproute2 mount=mount sysctl=procps
  [[ -x /usr/lib/cni/ptp || -x /opt/cni/bin/ptp ]] || need_commands no-such-command=containernetworking-plugins
}

refuse_second_node() {
  if is_running kubelet; then return; fi
  if port_in_use 10250; then die "something listens on port 10250 already: this machine runs another kubelet"; fi
  if iptables-save 2>/dev/null | grep -q '^:KUBE-SERVICES'; then
    die "this machine has another kube-proxy's rules: take that cluster down first"
  fi
}

ctr() { command ctr --address "$RUN/containerd.sock" --namespace k8s.io "$@"; }

write_containerd_config() {
  local cni_bin=/usr/lib/cni
  if [[ -x /opt/cni/bin/ptp ]]; then cni_bin=/opt/cni/bin; fi
  # restrict_oom_score_adj: root inside a container or a small VM may not lower its own OOM score, and runc insists on it otherwise.
  cat >"$STATE/containerd.toml" <<END
version = 2
root = "$STATE/containerd"
state = "$RUN/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$RUN/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$cni_bin"
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
END
  # Every pod gets a routed link of its own. Traffic leaving for elsewhere is masqueraded by one rule (masquerade_pods).
  mkdir -p "$STATE/cni"
  cat >"$STATE/cni/10-pods.conflist" <<END
{"cniVersion": "0.4.0", "name": "finetune-operator", "plugins": [{
  "type": "ptp", "mtu": 1500,
  "ipam": {"type": "host-local", "dataDir": "$STATE/cni-leases",
    "ranges": [[{"subnet": "$NODE_POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
}

masquerade_pods() {
  local rule=(POSTROUTING -s "$NODE_POD_CIDR" ! -d "$NODE_POD_CIDR" -m comment --comment finetune-operator -j MASQUERADE)
  iptables -w -t nat -C "${rule[@]}" 2>/dev/null || iptables -w -t nat -A "${rule[@]}"
}

start_containerd() {
  write_containerd_config
  start_process containerd containerd --config "$STATE/containerd.toml"
  wait_for 60 containerd "containerd answers" ctr version
  if ! ctr images ls -q | grep -qx "$PAUSE_IMAGE"; then ctr images import "$BIN/pause.tar" >/dev/null; fi
}

write_kubelet_config() {
  local resolv_conf=/etc/resolv.conf
  if [[ -f /run/systemd/resolve/resolv.conf ]]; then resolv_conf=/run/systemd/resolve/resolv.conf; fi
  cat >"$STATE/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-serving.crt
tlsPrivateKeyFile: $PKI/kubelet-serving.key
containerRuntimeEndpoint: unix://$RUN/containerd.sock
podLogsDir: $STATE/pod-logs
volumePluginDir: $STATE/kubelet/volume-plugins
resolvConf: $resolv_conf
clusterDomain: cluster.local
clusterDNS: [$DNS_IP]
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
oomScoreAdj: 0
maxPods: 250
healthzPort: $KUBELET_HEALTH_PORT
# A laptop's full disk is no reason to evict pods or to throw imported images away.
evictionHard: {memory.available: 100Mi, nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
END
}

start_kubelet() {
  write_kubelet_config
  start_process kubelet "$BIN/kubelet" --config "$STATE/kubelet.yaml" --kubeconfig "$PKI/kubelet.kubeconfig" \
    --root-dir "$STATE/kubelet" --hostname-override "$NODE_NAME" --node-ip "$NODE_IP"
}

start_kube_proxy() {
  start_process kube-proxy "$BIN/kube-proxy" --kubeconfig "$PKI/kube-proxy.kubeconfig" --proxy-mode iptables \
    --hostname-override "$NODE_NAME" --cluster-cidr "$NODE_POD_CIDR" --oom-score-adj 0 \
    --healthz-bind-address "127.0.0.1:$PROXY_HEALTH_PORT" --metrics-bind-address "127.0.0.1:$PROXY_METRICS_PORT" \
    --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 --conntrack-tcp-timeout-close-wait 0
}

# CoreDNS runs beside the kubelet and is reached through a Service with a hand-made EndpointSlice.
start_coredns() {
  cat >"$STATE/Corefile" <<END
.:$DNS_PORT {
  bind $NODE_IP
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $PKI/coredns.kubeconfig
    fallthrough in-addr.arpa ip6.arpa
  }
  forward . /etc/resolv.conf
  cache 30
}
END
  sed -e "s/\$DNS_IP/$DNS_IP/; s/\$NODE_IP/$NODE_IP/; s/\$DNS_PORT/$DNS_PORT/" "$HERE/manifests/dns.yaml" | kubectl apply -f - >/dev/null
  start_process coredns "$BIN/coredns" -conf "$STATE/Corefile"
}

# Opaque to the kubelet and honoured by the scheduler: no driver is needed to be handed a GPU.
advertise_gpus() {
  kubectl patch node "$NODE_NAME" --subresource status --type merge \
    -p '{"status":{"capacity":{"nvidia.com/gpu":"8"},"allocatable":{"nvidia.com/gpu":"8"}}}' >/dev/null
  kubectl label node "$NODE_NAME" nvidia.com/gpu.present=true --overwrite >/dev/null
}

start_real_node() {
  need_node_packages
  refuse_second_node
  mkdir -p "$RUN"
  [[ -f $STATE/sysctls ]] || sysctl "${SYSCTLS[@]}" >"$STATE/sysctls" 2>/dev/null || true
  sysctl -qw net.ipv4.ip_forward=1
  start_containerd
  masquerade_pods
  start_kubelet
  start_kube_proxy
  start_coredns
  # A starting kubelet sets resources it does not know to zero, so GPUs come after it has settled.
  wait_for 60 kubelet "the kubelet answers" port_in_use "$KUBELET_HEALTH_PORT"
  wait_for 60 kubelet "the kubelet has registered its node" kubectl get node "$NODE_NAME"
  advertise_gpus
  kubectl apply -f "$HERE/manifests/storage-real.yaml" >/dev/null
  "$HERE/volumes.sh" --name "$NAME"
  wait_for 120 kubelet "node $NODE_NAME is ready" kubectl wait node "$NODE_NAME" --for condition=Ready --timeout 10s
  wait_for 60 coredns "CoreDNS answers" port_in_use_on_node "$DNS_PORT"
}

port_in_use_on_node() { (exec 3<>"/dev/tcp/$NODE_IP/$1") 2>/dev/null; }

# ---- taking it apart again

remove_real_node() { # everything start_real_node and the pods left behind; the kubelet is gone already
  local container
  if is_running containerd; then
    for container in $(ctr tasks ls -q); do
      ctr tasks kill --signal SIGKILL --all "$container" 2>/dev/null || true
      ctr tasks delete --force "$container" >/dev/null 2>&1 || true
    done
  fi
  stop_process containerd
  kill_shims
  unmount_below "$STATE"
  unmount_below "$RUN"
  remove_links
  remove_firewall_rules iptables
  remove_firewall_rules ip6tables
  remove_cgroups
  remove_fixed_paths
  if [[ -f $STATE/sysctls ]]; then sysctl -qp "$STATE/sysctls" || true; fi
  rm -rf "$RUN"
}

remove_fixed_paths() { # what kubelet and CNI keep under names that cannot be configured
  find /var/log/containers -type l -lname "$STATE/*" -delete 2>/dev/null || true
  rm -f /var/lib/kubelet/device-plugins/{kubelet.sock,DEPRECATION}
  local result sandbox
  for result in /var/lib/cni/results/finetune-operator-*; do
    sandbox=${result##*/finetune-operator-}
    rm -f "/var/lib/cni/results/"*"-${sandbox%-*}-"*
  done
  rmdir /var/log/containers /var/lib/kubelet/* /var/lib/kubelet /var/lib/cni/* /var/lib/cni \
    /run/containerd/*/* /run/containerd/* /run/containerd 2>/dev/null || true
}

kill_shims() { # those that serve our containerd's socket, and no other
  local cmdline pid
  for cmdline in /proc/[0-9]*/cmdline; do
    pid=${cmdline//[^0-9]/}
    if tr '\0' ' ' <"$cmdline" 2>/dev/null | grep -q -- "^[^ ]*containerd-shim.*-address $RUN/containerd.sock"; then
      kill -9 "$pid" 2>/dev/null || true
    fi
  done
}

unmount_below() { # DIRECTORY, deepest first
  local target
  awk -v top="$1/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r target; do
    umount "$target" 2>/dev/null || umount --lazy "$target" || true
  done
}

remove_links() { # host ends of pod links die with their namespaces; take what is left
  local link
  for link in $(ip -4 route show | awk -v net="${NODE_POD_CIDR%.*}." 'index($1, net) == 1 && $3 ~ /^veth/ { print $3 }'); do
    ip link delete "$link" 2>/dev/null || true
  done
}

remove_firewall_rules() { # iptables or ip6tables: refuse_second_node made sure that all of these are ours
  if ! command -v "$1-save" >/dev/null; then return; fi
  "$1-save" 2>/dev/null | grep -v -e KUBE- -e finetune-operator | "$1-restore" 2>/dev/null || true
}

remove_cgroups() {
  find /sys/fs/cgroup -depth -type d \( -path '*/kubepods/*' -o -name kubepods \) -exec rmdir {} + 2>/dev/null || true
}
