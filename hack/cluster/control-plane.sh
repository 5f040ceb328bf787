# shellcheck shell=bash disable=SC2153
# Starts etcd and the control plane of the cluster that use_cluster chose.

SERVICE_CIDR=10.96.0.0/16
POD_CIDR=10.244.0.0/16

start_etcd() {
  local durability=(--unsafe-no-fsync)
  if [[ ${DURABLE:-} == 1 ]]; then durability=(); fi
  start_process etcd "$BIN/etcd" --name "$NAME" --data-dir "$STATE/etcd" --log-level warn "${durability[@]}" \
    --listen-client-urls "http://127.0.0.1:$ETCD_PORT" --advertise-client-urls "http://127.0.0.1:$ETCD_PORT" \
    --listen-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" --initial-advertise-peer-urls "http://127.0.0.1:$ETCD_PEER_PORT" \
    --initial-cluster "$NAME=http://127.0.0.1:$ETCD_PEER_PORT" --quota-backend-bytes 8589934592
  wait_for 60 etcd "etcd answers" port_in_use "$ETCD_PORT"
}

# Aggregator routing makes webhooks behind a Service reach its endpoints directly: a cluster of kwok nodes has no kube-proxy.
start_apiserver() {
  start_process kube-apiserver "$BIN/kube-apiserver" \
    --etcd-servers "http://127.0.0.1:$ETCD_PORT" --secure-port "$APISERVER_PORT" --advertise-address "$NODE_IP" \
    --service-cluster-ip-range "$SERVICE_CIDR" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --allow-privileged --enable-aggregator-routing --client-ca-file "$PKI/ca.crt" \
    --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" \
    --kubelet-client-certificate "$PKI/apiserver-kubelet-client.crt" --kubelet-client-key "$PKI/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority "$PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
    --proxy-client-cert-file "$PKI/front-proxy.crt" --proxy-client-key-file "$PKI/front-proxy.key" \
    --requestheader-client-ca-file "$PKI/ca.crt" --requestheader-allowed-names front-proxy \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$PKI/service-account.pub" --service-account-signing-key-file "$PKI/service-account.key" \
    --audit-policy-file "$HERE/manifests/audit-policy.yaml" --audit-log-path "$STATE/audit.log" \
    --audit-log-mode blocking --audit-log-maxsize 1000000
}

start_controller_manager() {
  local kubeconfig=$PKI/controller-manager.kubeconfig
  # Pods of kwok nodes take their addresses from kwok.
  local addresses=(--allocate-node-cidrs=true --cluster-cidr "$POD_CIDR")
  if [[ $NODES == kwok:* ]]; then addresses=(--allocate-node-cidrs=false --enable-hostpath-provisioner=true); fi
  start_process kube-controller-manager "$BIN/kube-controller-manager" --leader-elect=false \
    --bind-address 127.0.0.1 --secure-port "$CONTROLLER_MANAGER_PORT" \
    --kubeconfig "$kubeconfig" --authentication-kubeconfig "$kubeconfig" --authorization-kubeconfig "$kubeconfig" \
    --use-service-account-credentials --service-account-private-key-file "$PKI/service-account.key" --root-ca-file "$PKI/ca.crt" \
    --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" --service-cluster-ip-range "$SERVICE_CIDR" \
    --flex-volume-plugin-dir "$STATE/volume-plugins" --kube-api-qps 500 --kube-api-burst 1000 "${addresses[@]}"
}

start_scheduler() {
  local kubeconfig=$PKI/scheduler.kubeconfig
  start_process kube-scheduler "$BIN/kube-scheduler" --leader-elect=false \
    --bind-address 127.0.0.1 --secure-port "$SCHEDULER_PORT" \
    --kubeconfig "$kubeconfig" --authentication-kubeconfig "$kubeconfig" --authorization-kubeconfig "$kubeconfig" \
    --kube-api-qps 500 --kube-api-burst 1000
}

default_service_account_exists() { kubectl get serviceaccount default -n default; }

start_control_plane() {
  start_etcd
  start_apiserver
  wait_for 120 kube-apiserver "kube-apiserver is ready" kubectl get --raw /readyz
  start_controller_manager
  start_scheduler
  wait_for 60 kube-scheduler "kube-scheduler answers" port_in_use "$SCHEDULER_PORT"
  wait_for 60 kube-controller-manager "controllers are at work" default_service_account_exists
}
