# Checkpoints written by hand.

import_of() { # STEP: a Checkpoint written by hand over the files of that step of the demo run
  get checkpoint "capitals-step-$1" -o json |
    jq '{apiVersion, kind, metadata: {name: "imported-\(.spec.step)"}, spec: (.spec | {step, baseModel, format, storage})}'
}
import_of 100 | kubectl apply -n "$ns" -f - >/dev/null
has_checkpoint imported-100
[[ $(get checkpoint imported-100 -o jsonpath='{.status.digest}') == "$(get checkpoint capitals-step-100 -o jsonpath='{.status.digest}')" ]] ||
  fail "an import of the same files has another digest"
pass "a Checkpoint written by hand is verified by a Job before it is Ready"
