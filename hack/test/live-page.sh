#!/usr/bin/env bash
# The live page of the gateway in a headless Chromium, on a cluster with simulated nodes. Needs Node, npm, and Chromium, which is installed
# where the machine has apt and we are root.
#
#   live-page.sh               clicks through the page
#   live-page.sh picture       the same, and writes docs/live-page.png anew
#   live-page.sh environment   what the test needs, for integration.sh; nothing where there is no Chromium to be had
#
# CLUSTER and KEEP mean what they mean to integration.sh. SHOTS=DIR keeps pictures of every view.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$root/target/live-page
playwright=1.65.1

have_chromium() {
  command -v chromium >/dev/null && return
  [[ $EUID == 0 ]] && command -v apt-get >/dev/null && apt-get install --yes --no-install-recommends chromium >&2
}

have_playwright() {
  local there=$folder/node_modules/playwright-core/package.json
  command -v node >/dev/null || return
  grep -q "\"version\": \"$playwright\"" "$there" 2>/dev/null && return
  npm install --prefix "$folder" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts "playwright-core@$playwright" >&2
}

if ! { have_playwright && have_chromium; }; then
  echo "the live page is not tested: it takes Node, npm and Chromium" >&2
  [[ ${1:-} == environment ]] && exit
  exit 1
fi
if [[ ${1:-} == environment ]]; then
  printf 'export FINETUNE_IT_PAGE_MODULES=%q\n' "$folder"
  exit
fi
if [[ ${1:-} == picture ]]; then export PAGE_PICTURE=$root/docs/live-page.png; fi
if [[ -n ${SHOTS:-} ]]; then
  mkdir -p "$SHOTS"
  export PAGE_SHOTS=$SHOTS
fi
"$root/hack/test/integration.sh" the_live_page_shows
