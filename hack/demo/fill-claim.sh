#!/usr/bin/env bash
# Copies a folder into the claim `assets` of a namespace, through a short-lived pod of the trainer image.
#
#   fill-claim.sh NAMESPACE FOLDER IMAGE

set -euo pipefail
namespace=$1 folder=$2 image=$3

kubectl apply -n "$namespace" -f - >&2 <<YAML
apiVersion: v1
kind: Pod
metadata: {name: fill-assets}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext:
    {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: fill
      image: $image
      imagePullPolicy: IfNotPresent
      command: [sleep, "600"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: assets, mountPath: /assets}]
  volumes: [{name: assets, persistentVolumeClaim: {claimName: assets}}]
YAML
kubectl wait -n "$namespace" --for=condition=Ready pod/fill-assets --timeout=300s >&2
# Not "." itself: the root of a volume belongs to the kubelet.
find "$folder" -mindepth 1 -maxdepth 1 -printf '%P\0' | tar -C "$folder" --null -T - -cf - | kubectl exec -i -n "$namespace" fill-assets -- tar -C /assets --no-same-owner --no-same-permissions -xf -
kubectl delete -n "$namespace" pod/fill-assets --wait=true >&2
