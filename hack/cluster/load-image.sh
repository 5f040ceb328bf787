#!/usr/bin/env bash
# Imports an image tar, OCI layout or docker archive, into the real node.
#
#   load-image.sh [--name NAME] TAR [REF]
#
# With REF the image gets that name, whatever the tar calls it; without, the tar's own. Pods that use the image should say
# imagePullPolicy: IfNotPresent or Never.
#
#   load-image.sh app.tar localhost/app:dev

set -euo pipefail
source "$(dirname "$0")/lib.sh"
source "$HERE/real-node.sh"

name=local arguments=()
while (($#)); do
  case $1 in
    --name) name=$2 && shift 2 ;;
    -h | --help) usage ;;
    -*) usage 2 >&2 ;;
    *) arguments+=("$1") && shift ;;
  esac
done
((${#arguments[@]} == 1 || ${#arguments[@]} == 2)) || usage 2 >&2
tar=${arguments[0]} ref=${arguments[1]:-}
[[ -f $tar ]] || die "no such file: $tar"
use_cluster "$name"
is_running containerd || die "cluster $NAME has no real node up"

full_name() { # the way the kubelet asks for it: app:1 is docker.io/library/app:1
  local first=${1%%/*}
  if [[ $1 != */* ]]; then
    echo "docker.io/library/$1"
  elif [[ $first == *[.:]* || $first == localhost ]]; then
    echo "$1"
  else
    echo "docker.io/$1"
  fi
}

names_itself() { # whether the tar holds a full name; an OCI layout often has just a tag
  { tar -xOf "$tar" --wildcards --no-anchored index.json manifest.json 2>/dev/null || true; } |
    grep -qE '"(io.containerd.image|org.opencontainers.image.ref).name": ?"[^"]*/|"RepoTags": ?\["'
}

# With --base-name containerd drops the names in the tar and puts a bare tag under ours. Left to itself it would invent a name
# under which the kubelet does not find the image, ever.
# Where the tar holds the full name, that is the one: with two names for one image containerd may collect the index it is unpacking.
options=()
if ! names_itself; then
  [[ -n $ref ]] || die "$tar does not hold its image's full name: give REF"
  options=(--base-name localhost/imported --index-name "$(full_name "$ref")")
fi
ctr images import "${options[@]}" "$tar" >/dev/null
for leftover in $(ctr images ls -q 'name~=^localhost/imported:'); do ctr images rm --sync "$leftover" >/dev/null; done
log "imported $tar${ref:+ as $(full_name "$ref")}"
