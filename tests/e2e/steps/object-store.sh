# A real S3-compatible server, for this step and for LoRA.

# shellcheck source=/dev/null
source "$(dirname "$KUBECONFIG")/env"
endpoint=$NODE_IP:5555
"$root/hack/s3.sh" start "$endpoint" checkpoints >/dev/null
objects() { curl -sf "http://$endpoint/checkpoints?prefix=team-a/&list-type=2" | grep -o '<Key>[^<]*</Key>' | wc -l || true; }
(cd "$root" && S3_ENDPOINT=http://$endpoint S3_BUCKET=checkpoints cargo test --quiet --test object_store)
pass "the agent's store works against a real server: multipart, checksums, removal"
