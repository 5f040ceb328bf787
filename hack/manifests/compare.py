#!/usr/bin/env python3
"""Compares the objects of two files of manifests, but for what Helm or kustomize alone adds.

    compare.py CHART.yaml KUSTOMIZE.yaml
"""

import re
import sys

import yaml

# Go writes 5e-06, which is a number to every YAML reader but PyYAML.
yaml.SafeLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]+$"), list("-0123456789"))

HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")
HELM_ANNOTATIONS = ("helm.sh/resource-policy",)


def objects(path):
    found = {}
    with open(path, encoding="utf-8") as file:
        for thing in yaml.safe_load_all(file):
            if not thing or thing["kind"] == "Namespace" or "helm.sh/hook" in (thing["metadata"].get("annotations") or {}):
                continue
            found[thing["kind"], thing["metadata"]["name"]] = plain(thing)
    return found


def plain(thing):
    metadata = thing["metadata"]
    for key, names in (("labels", HELM_LABELS), ("annotations", HELM_ANNOTATIONS)):
        kept = {name: value for name, value in (metadata.get(key) or {}).items() if name not in names}
        metadata[key] = kept
    return thing


def main():
    chart, kustomize = map(objects, sys.argv[1:3])
    complaints = [f"only the chart has {key}" for key in sorted(chart.keys() - kustomize.keys())]
    complaints += [f"only kustomize has {key}" for key in sorted(kustomize.keys() - chart.keys())]
    complaints += [f"{key} differs" for key in sorted(chart.keys() & kustomize.keys()) if chart[key] != kustomize[key]]
    print(*complaints, sep="\n", end="\n" if complaints else "")
    print(f"{len(chart)} objects compared", file=sys.stderr)
    return 1 if complaints or not chart else 0


if __name__ == "__main__":
    sys.exit(main())
