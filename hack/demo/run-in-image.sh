#!/usr/bin/env bash
# Runs a command with the trainer image's programs, without a container engine:
#
#     hack/demo/run-in-image.sh [--bind SOURCE:NAME]... -- COMMAND...
#
# Each SOURCE appears as /mnt/NAME. As in a pod of the demo, the command runs as uid 1000, offline
# (HF_HUB_OFFLINE), on a read-only root with an empty HOME. It needs root; all mounts live in a
# namespace of their own and go with it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [[ ${1:-} == --inside ]]; then
  rootfs=$2
  shift 2
  mount --bind "$rootfs" "$rootfs"
  mount -t proc proc "$rootfs/proc"
  mount -t tmpfs -o mode=1777 tmpfs "$rootfs/tmp"
  mount -t tmpfs -o mode=1777 tmpfs "$rootfs/dev/shm"
  mount -t tmpfs -o mode=0755 tmpfs "$rootfs/mnt"
  while [[ $1 == --bind ]]; do
    mkdir "$rootfs/mnt/${2##*:}"
    mount --bind "${2%:*}" "$rootfs/mnt/${2##*:}"
    shift 2
  done
  [[ $1 == -- ]] && shift
  mount -o remount,bind,ro "$rootfs"
  mkdir -m 777 "$rootfs/tmp/home"
  exec chroot --userspec=1000:1000 "$rootfs" /usr/bin/env -i \
    PATH=/usr/local/bin:/usr/bin:/bin HOME=/tmp/home USER=trainer LANG=C.UTF-8 \
    HF_HUB_OFFLINE=1 USE_LIBUV=0 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=1 "$@"
fi

((EUID == 0)) || { echo "run-in-image.sh needs root (chroot and mount)" >&2; exit 1; }
image=$("$here/../../images/trainer/build.sh")
exec unshare --mount --propagation private "${BASH_SOURCE[0]}" --inside "$(dirname "$image")/rootfs" "$@"
