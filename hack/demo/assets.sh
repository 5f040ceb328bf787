#!/usr/bin/env bash
# Makes the demo's base model and data with the trainer image's own Python; progress goes to
# stderr, the last line on stdout is the folder:
#
#     model/                   a tiny Llama with its tokenizer
#     dataset/train.jsonl      400 rows {"prompt", "completion"}
#     dataset/eval.jsonl        40 rows
#
# TRL takes the folder dataset/ itself as dataset_name. The datasets library finds the splits by
# file name: train.jsonl is "train"; test, testing, eval or evaluation is "test"; validation,
# valid, val or dev is "validation". TRL evaluates on dataset_test_split, by default "test", so
# eval.jsonl needs no further key, while a validation.jsonl needs
# "dataset_test_split": "validation". Nothing is evaluated unless eval_strategy is set, and then
# a missing split is an error (KeyError).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/finetune-operator
hash=$(cat "$here/assets.sh" "$here/make_model.py" "$here/make_dataset.py" "$here/../../images/trainer/build.sh" | sha256sum | cut -c1-12)
final=$cache/demo-assets-$hash

mkdir -p "$cache"
exec 9>"$final.lock"
flock 9
if [[ ! -d $final ]]; then
  started=$SECONDS
  work=$final.partial
  rm -rf "$work"
  install -d -m 777 "$work"
  # One start of the image serves both: the imports take longer than the work.
  "$here/run-in-image.sh" --bind "$here:scripts" --bind "$work:out" -- sh -ec '
    python3 /mnt/scripts/make_dataset.py /mnt/out/dataset
    python3 /mnt/scripts/make_model.py /mnt/out/model --text /mnt/out/dataset/train.jsonl
  ' >&2
  chown -R "$(id -u):$(id -g)" "$work"
  chmod 755 "$work"
  rm -rf "$final"
  mv "$work" "$final"
  echo "demo assets: made in $((SECONDS - started)) s" >&2
else
  echo "demo assets: cached" >&2
fi
echo "$final"
