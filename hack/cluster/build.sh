#!/usr/bin/env bash
# Builds what the local cluster runs, once, into a cache outside the clone.
#
#   build.sh                 everything
#   build.sh control-plane   etcd, the Kubernetes components, kwok, kubectl, helm (Helm 4), helm3 (Helm 3)
#   build.sh node            what a real node needs on top: coredns and the pause image
#   build.sh kueue           Kueue, for kueue.sh; not part of everything
#   build.sh --bin           print the directory of the binaries and build nothing
#
# The cache lies under ${XDG_CACHE_HOME:-~/.cache}/finetune-operator/, named after a hash of versions.env and src/ (Kueue's of
# kueue/), so a new version builds beside the old one. What is there already is not built again, and two builds at once wait for
# each other.
# Needs Go, npm, python3. About 10 minutes on 2 cores the first time, nothing afterwards.
#
#   PATH=$(hack/cluster/build.sh --bin):$PATH kubectl version --client

set -euo pipefail
source "$(dirname "$0")/lib.sh"
# shellcheck source=src/recipes.sh
source "$SOURCES/recipes.sh"
# shellcheck source=kueue/recipe.sh
source "$HERE/kueue/recipe.sh"

CACHE=$(cache_dir)

make_artifact() { # NAME MARKER: runs recipe_NAME unless its MARKER is in the cache
  local name=$1 work before
  if [[ -e $CACHE/bin/$2 ]]; then return; fi
  before=$(date +%s)
  log "building $name"
  work=$(mktemp -d "$CACHE/tmp.$name.XXXXXX")
  mkdir "$work/out"
  (cd "$work" && "recipe_$name") >"$work/log" 2>&1 || {
    tail -n 30 "$work/log" >&2
    die "$name does not build; its directory is $work"
  }
  # Links before the file they point to, the marker last: what is in bin is complete.
  find "$work/out" -mindepth 1 -maxdepth 1 ! -name "$2" -exec mv -f -t "$CACHE/bin" {} +
  mv -f "$work/out/$2" "$CACHE/bin/$2"
  rm -rf "$work"
  log "built $name in $(($(date +%s) - before)) s"
}

build_control_plane() {
  need_commands npm=npm python3=python3
  make_artifact kubectl kubectl
  make_artifact helm3 helm3
  make_artifact etcd etcd
  make_artifact kube kube
  make_artifact kwok kwok
}

build_node() {
  make_artifact pause pause.tar
  make_artifact coredns coredns
}

target=${1:-all}
case $target in
  --bin) echo "$CACHE/bin" && exit ;;
  -h | --help) usage ;;
  all | control-plane | node) ;;
  kueue) CACHE=$(kueue_cache_dir) ;;
  *) usage 2 >&2 ;;
esac

command -v go >/dev/null || die "please install Go, 1.26 or newer"
mkdir -p "$CACHE/bin"
exec 9>"$CACHE/lock"
flock -n 9 || { log "another build is running, waiting for it" && flock 9; }
find "$CACHE" -maxdepth 1 -name 'tmp.*' -exec chmod -R u+w {} + -exec rm -rf {} + # left by an interrupted build

case $target in
  control-plane) build_control_plane ;;
  node) build_node ;;
  kueue) make_artifact kueue kueue ;;
  all)
    build_control_plane
    build_node
    ;;
esac
log "$target is ready in $CACHE/bin"
