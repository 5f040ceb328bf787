#!/usr/bin/env bash
# Packs a directory into an OCI image tar, without a container engine.
#
#   pack-image.sh [--entrypoint PATH] [--user UID[:GID]] [--env K=V]… ROOTFS REF OUT.tar
#
# The image has one layer, ROOTFS as it is, owned by root. load-image.sh puts the tar onto the node.
#
#   pack-image.sh --entrypoint /app rootfs localhost/app:dev app.tar

set -euo pipefail
source "$(dirname "$0")/lib.sh"

entrypoint="" user="" env=()
while [[ ${1:-} == -* ]]; do
  case $1 in
    --entrypoint) entrypoint=$2 ;;
    --user) user=$2 ;;
    --env) env+=("$2") ;;
    -h | --help) usage ;;
    *) usage 2 >&2 ;;
  esac
  shift 2
done
(($# == 3)) || usage 2 >&2
rootfs=$1 ref=$2 out=$3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
blobs=$work/blobs/sha256
mkdir -p "$blobs"

digest() { sha256sum "$1" | cut -d' ' -f1; }
strings() { python3 -c 'import json, sys; print(json.dumps([s for s in sys.argv[1:] if s]))' "$@"; }
store() { # FILE: moves it among the blobs, prints its descriptor's digest and size
  local sha
  sha=$(digest "$1")
  mv "$1" "$blobs/$sha"
  printf '"digest":"sha256:%s","size":%d' "$sha" "$(stat -c %s "$blobs/$sha")"
}

tar -C "$rootfs" --numeric-owner --owner=0 --group=0 --sort=name -cf "$work/layer" .
diff_id=sha256:$(digest "$work/layer")
gzip -n1 <"$work/layer" >"$work/layer.gz" && rm "$work/layer"
layer=$(store "$work/layer.gz")

architecture=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
printf '{"architecture":"%s","os":"linux","config":{"User":"%s","Entrypoint":%s,"Env":%s},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
  "$architecture" "$user" "$(strings "$entrypoint")" \
  "$(strings PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${env[@]}")" "$diff_id" >"$work/config"
config=$(store "$work/config")

type=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json",%s},"layers":[{"mediaType":"%s.layer.v1.tar+gzip",%s}]}' \
  "$type" "$type" "$config" "$type" "$layer" >"$work/manifest"
manifest=$(store "$work/manifest")

printf '{"schemaVersion":2,"manifests":[{"mediaType":"%s.manifest.v1+json",%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"}}]}' \
  "$type" "$manifest" "$ref" "${ref##*:}" >"$work/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci-layout"
tar -C "$work" -cf "$out" oci-layout index.json blobs
