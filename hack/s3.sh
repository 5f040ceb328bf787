#!/usr/bin/env bash
# A throw-away S3 server (moto) for tests and the demo:
#
#     hack/s3.sh start [HOST:PORT] [BUCKET]    prints the endpoint; default 127.0.0.1:5555 finetune
#     hack/s3.sh stop  [HOST:PORT]
#     hack/s3.sh status [HOST:PORT]            prints the endpoint, or fails when none runs
#
# Objects live in memory and are gone after stop. Any credentials are accepted, but a client has
# to send some, and must address buckets by path. start is safe to repeat: a running server is
# kept, and so is its bucket. Pod networks reach it only on an address of the host, not on 127.0.0.1.
set -euo pipefail

MOTO=moto==5.2.5
PYTHON=${PYTHON:-python3}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator
command=${1:-}
address=${2:-127.0.0.1:5555}
bucket=${3:-finetune}
host=${address%:*}
port=${address##*:}
endpoint=http://$address
state=$cache/s3-${host//[^a-zA-Z0-9.]/_}-$port

log() { printf 's3: %s\n' "$*" >&2; }

# The environment is made in place (its scripts name their own path) and only counts once marked.
make_venv() {
  local hash
  hash=$(printf '%s' "$MOTO $("$PYTHON" --version 2>&1)" | sha256sum | cut -c1-12)
  venv=$cache/moto-$hash
  mkdir -p "$cache"
  (
    flock 9
    [[ -f $venv/complete ]] && exit
    local started=$SECONDS
    rm -rf "$venv"
    "$PYTHON" -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check "moto[server,s3]==${MOTO#*==}" >&2
    touch "$venv/complete"
    log "installed $MOTO in $((SECONDS - started)) s"
  ) 9>"$venv.lock"
}

# A pid alone may have passed to another process since: its start time must be the recorded one.
started_at() { awk '{ sub(/^.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }

running() {
  local pid since
  [[ -f $state/pid ]] && read -r pid since <"$state/pid" && [[ $(started_at "$pid") == "$since" ]]
}

answers() { "$venv/bin/python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' "$endpoint/moto-api/" 2>/dev/null; }

create_bucket() {
  AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION=us-east-1 \
    "$venv/bin/python" - "$endpoint" "$bucket" <<'END'
import sys

import boto3
from botocore.config import Config

endpoint, bucket = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}))
if bucket not in [b["Name"] for b in s3.list_buckets()["Buckets"]]:
    s3.create_bucket(Bucket=bucket)
END
}

start() {
  make_venv
  if ! running; then
    mkdir -p "$state"
    if (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then
      log "$address is in use by another process"
      exit 1
    fi
    setsid "$venv/bin/moto_server" -H "$host" -p "$port" >"$state/log" 2>&1 </dev/null &
    local pid=$!
    echo "$pid $(started_at "$pid")" >"$state/pid"
    local tries=0
    until answers; do
      if ! running || ((++tries > 100)); then
        log "did not come up:"
        tail -n 20 "$state/log" >&2
        stop
        exit 1
      fi
      sleep 0.2
    done
  fi
  create_bucket
  echo "$endpoint"
}

stop() {
  if running; then
    local pid since
    read -r pid since <"$state/pid"
    kill "$pid"
    local tries=0
    while running; do
      ((++tries <= 50)) || kill -KILL "$pid" 2>/dev/null || true
      sleep 0.1
    done
    log "stopped $address"
  fi
  rm -rf "$state"
}

case $command in
  start) start ;;
  stop) stop ;;
  status) running && echo "$endpoint" ;;
  *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
