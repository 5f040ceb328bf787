#!/usr/bin/env bash
# Makes the certificates, the service account key and the kubeconfigs of a cluster. Called by up.sh.
#
#   pki.sh STATE-DIR NODE-NAME NODE-IP APISERVER-PORT
#
# One authority signs everything. Everything is made once; to renew, take the cluster down and up again.

set -euo pipefail
source "$(dirname "$0")/lib.sh"

case ${1:-} in -h | --help) usage ;; esac
(($# == 4)) || usage 2 >&2
state=$1 node=$2 ip=$3 port=$4
[[ ! -f $state/pki/complete ]] || exit 0
umask 077
rm -rf "$state/pki"
mkdir -p "$state/pki"
cd "$state/pki"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

certificate() { # FILE COMMON-NAME ORGANIZATION [SUBJECT-ALT-NAMES]
  new_key "$1"
  openssl req -new -key "$1.key" -subj "/O=$3/CN=$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -out "$1.crt" -extfile <(
    echo "keyUsage=critical,digitalSignature"
    echo "extendedKeyUsage=clientAuth,serverAuth"
    echo "basicConstraints=CA:FALSE"
    echo "${4:+subjectAltName=$4}"
  ) 2>/dev/null
  rm "$1.csr"
}

kubeconfig() { # PATH CERTIFICATE
  cat >"$1" <<END
apiVersion: v1
kind: Config
clusters:
- name: finetune-operator
  cluster:
    server: https://$ip:$port
    certificate-authority-data: $(base64 -w0 ca.crt)
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 "$2.crt")
    client-key-data: $(base64 -w0 "$2.key")
contexts:
- name: finetune-operator
  context: {cluster: finetune-operator, user: $2}
current-context: finetune-operator
END
}

client() { # FILE COMMON-NAME ORGANIZATION: a certificate and the kubeconfig that carries it
  certificate "$@"
  kubeconfig "$1.kubeconfig" "$1"
}

new_key ca
openssl req -x509 -new -key ca.key -subj "/CN=finetune-operator local cluster" -days 365 -out ca.crt
openssl genrsa -out service-account.key 2048 2>/dev/null
openssl rsa -in service-account.key -pubout -out service-account.pub 2>/dev/null

certificate apiserver kube-apiserver finetune-operator \
  "IP:127.0.0.1,IP:$ip,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
certificate apiserver-kubelet-client kube-apiserver-kubelet-client system:masters
certificate front-proxy front-proxy finetune-operator
certificate kubelet-serving "system:node:$node" system:nodes "IP:$ip,DNS:$node"

client admin kubernetes-admin system:masters
client controller-manager system:kube-controller-manager system:kube-controller-manager
client scheduler system:kube-scheduler system:kube-scheduler
client kwok kwok system:masters
client kubelet "system:node:$node" system:nodes
client kube-proxy system:kube-proxy system:kube-proxy
client coredns system:coredns finetune-operator
client kueue kueue system:masters "IP:127.0.0.1,DNS:kueue-visibility-server.kueue-system.svc"

cp admin.kubeconfig ../kubeconfig
touch complete
