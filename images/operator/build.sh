#!/usr/bin/env bash
# Builds the operator's image without a container engine, as an OCI layout in one tar; the tar's path is the last line of stdout.
#
#   build.sh [TAG]      demo when TAG is absent; the image is docker.io/finetune/operator:TAG
#   ctr -n k8s.io images import --index-name docker.io/finetune/operator:demo "$(images/operator/build.sh | tail -n 1)"
#
# It holds the operator, the static finetune-run, kubectl-finetune where it was built, the libraries they need, a CA bundle and two
# users: 65532 (nonroot) and 1000 (the trainer's, for agents). The same binaries give the same image.
#
# PROFILE             cargo profile (release)
# OPERATOR_BINARY, RUN_BINARY, PLUGIN_BINARY   take these instead of building
# OUT                 directory of the tar (target/images)
# Needs umoci; installs Debian's when it is missing and this runs as root.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tag=${1:-demo}
profile=${PROFILE:-release}
target=${TARGET:-x86_64-unknown-linux-gnu}
built=${CARGO_TARGET_DIR:-$root/target}
out=${OUT:-$built/images}
folder=$profile
if [[ $profile == dev ]]; then folder=debug; fi

log() { printf '%s\n' "$*" >&2; }

need_umoci() {
  command -v umoci >/dev/null && return
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then log "please install umoci" && exit 1; fi
  log "installing umoci"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends umoci; } >&2 </dev/null
}

build_binaries() { # sets operator, run and plugin
  operator=${OPERATOR_BINARY:-} run=${RUN_BINARY:-} plugin=${PLUGIN_BINARY:-}
  if [[ -z $operator ]]; then
    (cd "$root" && cargo build --locked --profile "$profile" -p finetune-operator) >&2
    operator=$built/$folder/finetune-operator
    if [[ -z $plugin && -x $built/$folder/kubectl-finetune ]]; then plugin=$built/$folder/kubectl-finetune; fi
  fi
  if [[ -z $run ]]; then
    (cd "$root" && RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile "$profile" -p finetune-run --target "$target") >&2
    run=$built/$target/$folder/finetune-run
  fi
  if ldd "$run" 2>/dev/null | grep -q '=>'; then log "error: $run is not static, and trainers' images may hold another libc" && exit 1; fi
}

libraries() { # the files a binary is loaded with, its loader included
  { ldd "$1" 2>/dev/null || true; } | sed -nE 's/^.*=> (\/[^ ]+) .*$/\1/p; s/^[[:space:]]*(\/[^ ]+) \(0x.*$/\1/p'
}

fill_rootfs() { # DIRECTORY
  local binary library
  mkdir -p "$1"/{etc/ssl/certs,usr/local/bin,tmp}
  chmod 1777 "$1/tmp"
  install -m 755 "$operator" "$1/usr/local/bin/finetune-operator"
  install -m 755 "$run" "$1/usr/local/bin/finetune-run"
  if [[ -n $plugin ]]; then install -m 755 "$plugin" "$1/usr/local/bin/kubectl-finetune"; fi
  for binary in "$1"/usr/local/bin/*; do
    for library in $(libraries "$binary"); do
      install -D -m 755 "$(readlink -f "$library")" "$1$library"
    done
  done
  install -m 644 /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"
  printf '%s\n' 'root:x:0:0::/:/sbin/nologin' 'trainer:x:1000:1000::/tmp:/sbin/nologin' 'nonroot:x:65532:65532::/tmp:/sbin/nologin' >"$1/etc/passwd"
  printf '%s\n' 'root:x:0:' 'trainer:x:1000:' 'nonroot:x:65532:' >"$1/etc/group"
  find "$1" -exec touch --no-dereference --date=@0 {} +
}

need_umoci
[[ -r /etc/ssl/certs/ca-certificates.crt ]] || { log "please install ca-certificates" && exit 1; }
build_binaries
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fill_rootfs "$work/rootfs"

quiet=(--log error)
rootless=()
if ((EUID != 0)); then rootless=(--rootless); fi
umoci "${quiet[@]}" init --layout "$work/image"
umoci "${quiet[@]}" new --image "$work/image:$tag"
umoci "${quiet[@]}" insert "${rootless[@]}" --no-history --image "$work/image:$tag" "$work/rootfs" /
umoci "${quiet[@]}" config --no-history --image "$work/image:$tag" \
  --created 1970-01-01T00:00:00Z --config.user 65532:65532 --config.entrypoint /usr/local/bin/finetune-operator \
  --config.env PATH=/usr/local/bin --config.env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
  --config.label org.opencontainers.image.title=finetune-operator
umoci "${quiet[@]}" gc --layout "$work/image"

# The full name, which importers look for beside the tag.
python3 - "$work/image/index.json" "docker.io/finetune/operator:$tag" <<'END'
import json
import sys

path, name = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    index = json.load(file)
for manifest in index["manifests"]:
    manifest.setdefault("annotations", {})["io.containerd.image.name"] = name
with open(path, "w", encoding="utf-8") as file:
    json.dump(index, file, sort_keys=True)
END
mkdir -p "$out"
tar -C "$work/image" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$out/operator-$tag.tar.partial" oci-layout index.json blobs
mv "$out/operator-$tag.tar.partial" "$out/operator-$tag.tar"
echo "$out/operator-$tag.tar"
