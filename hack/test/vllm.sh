#!/usr/bin/env bash
# Starts the real vLLM with each of the command lines on record (tests/snapshots/golden__vllm-arguments.snap), over a tiny model and adapters of just
# these ranks made here, and asks it for its models and for a few tokens.
#
#   vllm.sh [CASE…]     CASE: full-weights, adapter-rank-8, …; all when none is named
#
# Needs a GPU that nvidia-smi sees and `vllm` on the PATH, with the Python it belongs to (PYTHON, python3 by default). Exits 2 and says what is
# missing where one is not there, 1 when a case fails.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
record=$root/tests/snapshots/golden__vllm-arguments.snap
python=${PYTHON:-python3}

missing=()
command -v vllm >/dev/null || missing+=("vllm is not on the PATH (pip install vllm)")
if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  missing+=("nvidia-smi sees no GPU")
fi
command -v "$python" >/dev/null || missing+=("$python is not there")
command -v curl >/dev/null || missing+=("curl is not there")
for module in torch transformers tokenizers safetensors yaml; do
  "$python" -c "import $module" 2>/dev/null || missing+=("$python has no module $module")
done
if ((${#missing[@]})); then
  printf 'vLLM cannot be tried here: %s\n' "${missing[@]}" >&2
  exit 2
fi

work=$(mktemp -d)
server=
finish() {
  local code=$?
  if [[ -n $server ]]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

"$python" "$root/hack/test/vllm_world.py" "$record" "$work" "$@"
failed=0
for folder in "$work"/cases/*/; do
  name=$(basename "$folder")
  mapfile -t words <"$folder/command"
  port=$(<"$folder/port")
  VLLM_NO_USAGE_STATS=1 HF_HUB_OFFLINE=1 "${words[@]}" >"$folder/log" 2>&1 &
  server=$!
  listed=
  for _ in $(seq 300); do
    kill -0 "$server" 2>/dev/null || break
    if curl -sf "http://127.0.0.1:$port/v1/models" | grep -q '"id": *"bot"'; then listed=yes && break; fi
    sleep 1
  done
  said=
  [[ -z $listed ]] || said=$(curl -sf "http://127.0.0.1:$port/v1/completions" -H 'content-type: application/json' \
    -d '{"model": "bot", "prompt": "a b c", "max_tokens": 4}' || true)
  if [[ $said == *'"choices"'* ]]; then
    echo "ok $name: ${words[*]}"
  else
    echo "FAILED $name: ${words[*]}" >&2
    tail -20 "$folder/log" >&2
    failed=1
  fi
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  server=
done
exit "$failed"
