#!/usr/bin/env bash
# Builds the demo's trainer image (Debian, TRL, Transformers, PEFT, PyTorch for the CPU) without a
# container engine, as an OCI layout in one tar:
#
#     images/trainer/build.sh            progress on stderr, the tar's path on stdout
#     ctr -n k8s.io images import "$(images/trainer/build.sh)"
#
# Needs root (debootstrap and chroot). The result is cached under
# ${XDG_CACHE_HOME:-~/.cache}/finetune-operator/trainer-<hash of this script>/ together with the
# unpacked root file system (rootfs/), which hack/demo/assets.sh uses to run the image's Python.
# A finished folder appears at once by a rename: an interrupted build leaves nothing behind but a
# *.partial folder, which the next one removes.
set -euo pipefail

IMAGE=docker.io/finetune/trainer:demo
SUITE=forky
# forky has no debootstrap script of its own on older hosts; every newer suite shares sid's.
SUITE_SCRIPT=sid
# debootstrap's variable for a mirror other than the one in the host's apt sources.
MIRROR=${MIRROR:-}

DEBIAN_PACKAGES=(
  ca-certificates
  python3
  # training
  python3-torch python3-transformers python3-accelerate python3-safetensors
  python3-pandas python3-pyarrow python3-dill python3-xxhash python3-multiprocess
  python3-fsspec python3-psutil python3-yaml python3-jinja2
  # transformers serve
  python3-fastapi python3-uvicorn python3-openai python3-pydantic
)

# Pure Python, on top of Debian's packages. datasets stays below the releases that want more than
# Debian has; TRL uses nothing newer for data read from files.
python_requirements() {
  cat <<'END'
trl==1.16.0 --hash=sha256:c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396
peft==0.21.2 --hash=sha256:106ab6077ff72c54d21577f9af5970e34bac7582cb14209f7b2b511e322a4eae
datasets==4.4.2 --hash=sha256:6f5ef3417504d9cd663c71c1b90b9a494ff4c2076a2cd6a6e40ceee6ad95befc
END
}

log() { printf '%s\n' "$*" >&2; }
die() { log "trainer image: $*"; exit 1; }

step() { # step TEXT COMMAND... : runs quietly, says how long it took, shows the log on failure
  local text=$1 started=$SECONDS
  shift
  printf '%-46s' "$text" >&2
  # Not "if step": errexit would not hold inside a function that is a condition.
  set +e
  (set -e; "$@") >>"$BUILD_LOG" 2>&1
  local status=$?
  set -e
  if ((status == 0)); then
    log "$((SECONDS - started)) s"
  else
    log "failed"
    tail -n 40 "$BUILD_LOG" >&2
    exit 1
  fi
}

missing_host_tools() { # prints the packages that would bring them
  command -v debootstrap >/dev/null || echo debootstrap
  command -v flock >/dev/null && command -v unshare >/dev/null || echo util-linux
  python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
}

install_host_tools() {
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# The first Debian archive (not the security one) that this machine itself installs from.
host_mirror() {
  local files=()
  shopt -s nullglob
  files=(/etc/apt/sources.list.d/debian.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list)
  shopt -u nullglob
  awk '
    /^[[:space:]]*#/ { next }
    $1 == "URIs:"    { for (i = 2; i <= NF; i++) print $i }
    $1 == "deb"      { for (i = 2; i <= NF; i++) if ($i ~ /:\//) { print $i; break } }
  ' "${files[@]}" 2>/dev/null | grep -E '/debian/?$' | head -n 1 || true
}

bootstrap() {
  debootstrap --variant=minbase --include=ca-certificates \
    "$SUITE" "$ROOTFS" "$MIRROR" "/usr/share/debootstrap/scripts/$SUITE_SCRIPT"
}

in_rootfs() {
  chroot "$ROOTFS" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C \
    DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy="$http_proxy"} \
    ${https_proxy:+https_proxy="$https_proxy"} "$@"
}

# A mirror that is a snapshot may serve a Release file past its date. Its signature is checked all
# the same, as debootstrap did just before; only the date is given up, and only when it must be.
refresh_package_lists() {
  if in_rootfs apt-get update -q -o APT::Update::Error-Mode=any; then return; fi
  printf '(Release file out of date, signature good) ' >&8
  in_rootfs apt-get update -q -o APT::Update::Error-Mode=any -o Acquire::Check-Valid-Until=false
}

install_debian_packages() {
  # Nothing the trainer needs at run time lives in these; what is never unpacked costs no time.
  cat >"$ROOTFS/etc/dpkg/dpkg.cfg.d/50-trainer-image" <<'END'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/lib/libtorch-test/*
path-exclude=/usr/lib/llvm-*/*
path-exclude=/usr/include/*
END
  printf '#!/bin/sh\nexit 101\n' >"$ROOTFS/usr/sbin/policy-rc.d"
  chmod 755 "$ROOTFS/usr/sbin/policy-rc.d"
  cp /etc/resolv.conf "$ROOTFS/etc/resolv.conf"
  refresh_package_lists
  in_rootfs apt-get install -y -q --no-install-recommends "${DEBIAN_PACKAGES[@]}"
}

install_python_packages() {
  local target
  target=$(echo "$ROOTFS"/usr/lib/python3.[0-9]*)
  target=$ROOTFS/usr/local/lib/${target##*/}/dist-packages
  python_requirements >"$WORK/requirements.txt"
  # The host's pip only unpacks wheels; the image's own Python compiles them.
  python3 -m pip install --no-deps --no-compile --require-hashes --only-binary=:all: \
    --target "$target" -r "$WORK/requirements.txt"
  in_rootfs python3 -m compileall -q "${target#"$ROOTFS"}"
  rm -rf "${target:?}/bin" "$WORK/requirements.txt"
}

# What `pip install trl` would put there, for the image's interpreter. It does not run
# `python3 -m trl.cli.main`, because runpy warns about that module on every start.
add_command() {
  local bin=$ROOTFS/usr/local/bin
  cat >"$bin/trl" <<'END'
#!/usr/bin/python3
"""The command line of TRL: trl sft --config parameters.json"""

import sys

from trl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
END
  chmod 755 "$bin/trl"
  # Debian's packages bring these.
  test -x "$ROOTFS/usr/bin/torchrun" -a -x "$ROOTFS/usr/bin/transformers"
}

# Debian builds PyTorch without libuv, and torchrun's rendezvous asks for it whatever USE_LIBUV says:
# it would fail on every start. The image also sets USE_LIBUV=0 for the places that do ask.
let_torchrun_do_without_libuv() {
  local distributed=/usr/lib/python3/dist-packages/torch/distributed
  local agent=("$distributed"/elastic/rendezvous/{static_tcp_rendezvous,c10d_rendezvous_backend,dynamic_rendezvous}.py)
  local worker=$distributed/rendezvous.py
  in_rootfs sed -i 's/^\( *\)multi_tenant=True,$/&\n\1use_libuv=False,/' "${agent[@]}"
  in_rootfs sed -i 's/^\( *\)is_master=False,$/&\n\1use_libuv=use_libuv,/' "$worker"
  in_rootfs python3 -m compileall -q "${agent[@]}" "$worker"
}

add_user() {
  echo 'trainer:x:1000:1000:trainer:/home/trainer:/bin/sh' >>"$ROOTFS/etc/passwd"
  echo 'trainer:x:1000:' >>"$ROOTFS/etc/group"
  install -d -o 1000 -g 1000 -m 755 "$ROOTFS/home/trainer"
}

# Compiled Python stays: without it every start on a read-only root compiles all imports again.
# The ROCm and LLVM libraries are only a plug-in of Open MPI's transport, which loads them by name
# when an AMD card is there; smoke_test proves that nothing imported here links to them.
trim() {
  rm -f "$ROOTFS"/usr/lib/*-linux-gnu/lib{LLVM,amd_comgr,amdhip64,hsa-runtime64}*
  rm -rf "$ROOTFS"/usr/lib/llvm-* "$ROOTFS"/usr/lib/clang "$ROOTFS"/usr/lib/git-core
  rm -rf "$ROOTFS"/usr/lib/libtorch-test "$ROOTFS"/usr/include/*
  rm -rf "$ROOTFS"/usr/share/{doc,man,info,locale,lintian}/*
  # numpy.testing uses numpy's tests; these packages never import theirs.
  find "$ROOTFS"/usr/lib/python3/dist-packages/{pandas,pyarrow,sympy,networkx,fsspec,mpmath} \
    -depth -type d -name tests -exec rm -rf {} +
  rm -rf "$ROOTFS"/var/lib/apt/lists/* "$ROOTFS"/var/cache/* "$ROOTFS"/var/log/* "$ROOTFS"/tmp/*
  rm -f "$ROOTFS/usr/sbin/policy-rc.d" "$ROOTFS/etc/dpkg/dpkg.cfg.d/50-trainer-image"
  : >"$ROOTFS/etc/resolv.conf"
  : >"$ROOTFS/etc/hostname"
}

# The mount lives in a namespace of its own and goes with it.
as_trainer() {
  # shellcheck disable=SC2016
  unshare --mount sh -c 'mount -t proc proc "$1/proc" && exec chroot --userspec=1000:1000 "$@"' \
    sh "$ROOTFS" /usr/bin/env -i PATH="$IMAGE_PATH" HOME=/tmp USER=trainer \
    HF_HUB_OFFLINE=1 USE_LIBUV=0 PYTHONDONTWRITEBYTECODE=1 "$@"
}

smoke_test() {
  as_trainer python3 -c '
import datasets, fastapi, openai, peft, torch, transformers, trl, uvicorn
from trl import SFTConfig, SFTTrainer
from transformers.cli.serve import Serve
torch.ones(2, 2).matmul(torch.ones(2, 2))
print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__)
'
  cat >"$ROOTFS/tmp/reduce.py" <<'END'
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
ones = torch.ones(1)
dist.all_reduce(ones)
assert ones.item() == dist.get_world_size()
dist.destroy_process_group()
END
  as_trainer torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node 1 /tmp/reduce.py
  rm -rf "$ROOTFS"/tmp/* "$ROOTFS"/tmp/.[!.]*
}

digest_of() { sha256sum "$1" | cut -d' ' -f1; }

blob() { # blob FILE: moves FILE into the layout under its digest, prints the digest
  local digest
  digest=$(digest_of "$1")
  mv "$1" "$LAYOUT/blobs/sha256/$digest"
  echo "$digest"
}

# One uncompressed layer: nothing is gained by compressing what never leaves the machine, and the
# digest of the layer is then also its diff id. Times are kept, since compiled Python names them.
pack() {
  local layer layer_size config config_size manifest manifest_size created
  created=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  mkdir -p "$LAYOUT/blobs/sha256"
  tar --create --numeric-owner --sort=name --one-file-system --format=gnu \
    --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' --exclude='./run/*' \
    --directory "$ROOTFS" --file "$WORK/layer" .
  layer=$(blob "$WORK/layer")
  layer_size=$(stat -c %s "$LAYOUT/blobs/sha256/$layer")

  cat >"$WORK/config" <<END
{"created":"$created","architecture":"$ARCHITECTURE","os":"linux",
 "config":{"User":"1000:1000","WorkingDir":"/home/trainer",
  "Env":["PATH=$IMAGE_PATH","HOME=/home/trainer","USER=trainer","LANG=C.UTF-8",
   "HF_HUB_OFFLINE=1","USE_LIBUV=0","HF_HUB_DISABLE_TELEMETRY=1","TOKENIZERS_PARALLELISM=false",
   "PYTHONUNBUFFERED=1","PYTHONDONTWRITEBYTECODE=1"],
  "Cmd":["trl","--help"]},
 "rootfs":{"type":"layers","diff_ids":["sha256:$layer"]},
 "history":[{"created":"$created","created_by":"images/trainer/build.sh"}]}
END
  config=$(blob "$WORK/config")
  config_size=$(stat -c %s "$LAYOUT/blobs/sha256/$config")

  cat >"$WORK/manifest" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
 "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},
 "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:$layer","size":$layer_size}]}
END
  manifest=$(blob "$WORK/manifest")
  manifest_size=$(stat -c %s "$LAYOUT/blobs/sha256/$manifest")

  # ctr takes the name from containerd's own annotation, or else from the reference name.
  cat >"$LAYOUT/index.json" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",
 "manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,
  "platform":{"architecture":"$ARCHITECTURE","os":"linux"},
  "annotations":{"org.opencontainers.image.ref.name":"$IMAGE","io.containerd.image.name":"$IMAGE"}}]}
END
  echo '{"imageLayoutVersion":"1.0.0"}' >"$LAYOUT/oci-layout"
  tar --create --numeric-owner --owner=0 --group=0 --directory "$LAYOUT" --file "$WORK/image.tar" \
    oci-layout index.json blobs
  rm -rf "$LAYOUT"
}

main() {
  local cache hash started=$SECONDS
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator
  hash=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
  FINAL=$cache/trainer-$hash
  WORK=$FINAL.partial
  ROOTFS=$WORK/rootfs
  LAYOUT=$WORK/layout
  BUILD_LOG=$cache/trainer-$hash.log
  IMAGE_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

  if [[ -f $FINAL/image.tar ]]; then
    log "trainer image: cached"
    echo "$FINAL/image.tar"
    return
  fi
  ((EUID == 0)) || die "building needs root (debootstrap and chroot)"
  mkdir -p "$cache"
  local tools
  mapfile -t tools < <(missing_host_tools)
  if ((${#tools[@]})); then step "host tools (${tools[*]})" install_host_tools "${tools[@]}"; fi
  ARCHITECTURE=$(dpkg --print-architecture)

  # A second build of the same image waits here and then finds it made.
  exec 8>&2 9>"$FINAL.lock"
  flock 9
  if [[ ! -f $FINAL/image.tar ]]; then
    : "${MIRROR:=$(host_mirror)}"
    [[ -n $MIRROR ]] || die "no Debian archive in this machine's apt sources; set MIRROR"
    rm -rf "$WORK"
    mkdir -p "$WORK"
    : >"$BUILD_LOG"
    step "debootstrap ($SUITE, minbase)" bootstrap
    step "Debian packages (torch, transformers, ...)" install_debian_packages
    step "Python packages (trl, peft, datasets)" install_python_packages
    step "command trl" add_command
    step "user trainer (1000)" add_user
    step "torchrun without libuv" let_torchrun_do_without_libuv
    step "trimming" trim
    step "smoke test as uid 1000" smoke_test
    step "packing the OCI layout" pack
    rm -rf "$FINAL"
    mv "$WORK" "$FINAL"
    log "trainer image: $IMAGE, $(du -m "$FINAL/image.tar" | cut -f1) MB, $((SECONDS - started)) s in all"
  fi
  echo "$FINAL/image.tar"
}

main "$@"
