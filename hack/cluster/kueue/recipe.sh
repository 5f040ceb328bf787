# shellcheck shell=bash
# How Kueue is made. Its cache is named after a hash of this folder, so that it and the cluster are built apart from each other.

KUEUE_VERSION=0.18.3

# `go install` would ask for all versions of the module; a wrapper asks for this one alone. Two folders of certificates are written into
# the program; here it looks for them where it is started.
recipe_kueue() {
  local module
  module=$(cd / && GO111MODULE=on go mod download -json "sigs.k8s.io/kueue@v$KUEUE_VERSION" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
  printf 'module finetune-operator/hack/cluster/kueue\ngo 1.26.0\nrequire sigs.k8s.io/kueue v%s\n' "$KUEUE_VERSION" >go.mod
  sed 's#"/etc/kueue/metrics/certs"#"."#' "$module/cmd/kueue/main.go" >main.go
  go_build kueue "-X sigs.k8s.io/kueue/pkg/visibility.certDir=. -X sigs.k8s.io/kueue/pkg/version.GitVersion=v$KUEUE_VERSION"
  mkdir out/kueue-manifests
  cp -r "$module/config/components/crd/bases" out/kueue-manifests/crds
  cp "$module/config/components/webhook/manifests.yaml" out/kueue-manifests/webhooks.yaml
  cp "$SOURCES/../kueue/kustomization.yaml" out/kueue-manifests/
  chmod -R u+w out/kueue-manifests
}
