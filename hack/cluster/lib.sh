# shellcheck shell=bash disable=SC2034
# Shared by the scripts beside it: logging, names of directories and ports, background processes and waiting for them.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export SOURCES=$HERE/src
# shellcheck source=versions.env
source "$HERE/versions.env"

STARTED_AT=$(date +%s%3N)
log() {
  local ms=$(($(date +%s%3N) - STARTED_AT))
  printf '[%3d.%ds] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*" >&2
}
die() {
  log "error: $*"
  exit 1
}
usage() { # prints the comment block at the top of the calling script
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
  exit "${1:-0}"
}

take_name() { # ARGUMENT…: sets `name` from --name, the one option of the calling script
  name=local
  while (($#)); do
    case $1 in
      --name) name=$2 && shift 2 ;;
      -h | --help) usage ;;
      *) usage 2 >&2 ;;
    esac
  done
}

# ---- directories

hash_of() { # PATH…, below this folder
  (cd "$HERE" && find "$@" -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
}
# Each is named after everything that decides what is built into it.
cache_dir() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator/$(hash_of versions.env pack-image.sh src)"; }
kueue_cache_dir() { echo "${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator/kueue-$(hash_of kueue)"; }
state_root() { echo "${XDG_STATE_HOME:-$HOME/.local/state}/finetune-operator"; }

use_cluster() { # NAME: sets the variables that say where a cluster keeps its things, and loads what it recorded
  [[ $1 =~ ^[a-z][a-z0-9-]{0,19}$ ]] || die "a cluster's name is 1 to 20 of a-z, 0-9 and -, not '$1'"
  NAME=$1
  BIN=$(cache_dir)/bin
  STATE=$(state_root)/$NAME
  PKI=$STATE/pki
  RUN=/run/finetune-operator/$NAME # sockets only: their paths must stay short
  export KUBECONFIG=$STATE/kubeconfig
  # shellcheck source=/dev/null
  if [[ -f $STATE/env ]]; then source "$STATE/env"; fi
}

lock_cluster() { # one script at a time per cluster; what the one before recorded counts
  mkdir -p "$(state_root)"
  exec 9>"$(state_root)/$NAME.lock"
  flock -w 300 9 || die "another script has been working on cluster $NAME for 5 minutes"
  use_cluster "$NAME"
}

# ---- ports: a block of twenty per cluster, below the NodePort and the ephemeral ranges

port_in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

block_is_free() { # BASE
  local port
  if grep -qsx "PORT_BASE=$1" "$(state_root)"/*/env; then return 1; fi
  for port in $(seq "$1" $(($1 + 19))); do
    if port_in_use "$port"; then return 1; fi
  done
}

free_port_base() { # starts at a block derived from the name, takes the first free one
  local first block
  first=$(($(cksum <<<"$NAME" | cut -d' ' -f1) % 450))
  for block in $(seq "$first" $((first + 50))); do
    if block_is_free $((20000 + block % 450 * 20)); then
      echo $((20000 + block % 450 * 20))
      return
    fi
  done
  die "found no twenty free ports between 20000 and 29000"
}

# ---- processes: a pid file holds the pid and its start time, so that a reused pid is never taken for ours

start_time() { # PID
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  [[ ${stat%% *} != Z ]] || return 1
  cut -d' ' -f20 <<<"$stat"
}

is_running() { # PROCESS
  local pid started
  read -r pid started 2>/dev/null <"$STATE/pids/$1" || return 1
  [[ $(start_time "$pid") == "$started" ]]
}

start_process() { # PROCESS COMMAND…: in the background, unless it already runs
  local process=$1 pid
  shift
  if is_running "$process"; then
    log "$process is already up"
    return
  fi
  mkdir -p "$STATE/pids" "$STATE/logs"
  setsid "$@" </dev/null >>"$STATE/logs/$process.log" 2>&1 9>&- &
  pid=$!
  echo "$pid $(start_time "$pid" || echo 0)" >"$STATE/pids/$process"
}

stop_process() { # PROCESS: TERM, then KILL after 15 s; returns when it is gone
  local pid
  if is_running "$1"; then
    read -r pid _ <"$STATE/pids/$1"
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 150); do
      if ! is_running "$1"; then break; fi
      sleep 0.1
    done
    if is_running "$1"; then
      log "$1 ignores TERM, killing it"
      kill -9 "$pid" 2>/dev/null || true
      while is_running "$1"; do sleep 0.1; done
    fi
    log "stopped $1"
  fi
  rm -f "$STATE/pids/$1"
}

wait_for() { # SECONDS PROCESS DESCRIPTION COMMAND…: until COMMAND succeeds; fails early if PROCESS dies
  local deadline=$(($(date +%s) + $1)) process=$2 description=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    is_running "$process" || give_up "$process" "$process died while waiting until $description"
    (($(date +%s) < deadline)) || give_up "$process" "gave up waiting until $description"
    sleep 0.1
  done
  is_running "$process" || give_up "$process" "$process died at once"
  log "$description"
}

give_up() { # PROCESS MESSAGE
  log "last lines of $STATE/logs/$1.log:"
  tail -n 20 "$STATE/logs/$1.log" >&2 || true
  die "$2"
}

# ---- packages

need_commands() { # COMMAND=DEBIAN-PACKAGE…: installs what is missing, if it can
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  if ((${#missing[@]} == 0)); then return; fi
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then die "please install: ${missing[*]}"; fi
  log "installing ${missing[*]}"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >/dev/null </dev/null || die "apt-get could not install ${missing[*]}"
}

kubectl() { "$BIN/kubectl" "$@"; }
