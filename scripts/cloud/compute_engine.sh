#!/usr/bin/env bash
# One Compute Engine machine with GPUs that evaluates and then deletes itself, or stops
# where that failed:
#   scripts/cloud/compute_engine.sh NAME BUCKET IMAGE [gcloud's flags, as --zone=...]
# IMAGE: what Dockerfile here makes with EXTRA=cuda12, pushed to a registry that the
# machine may read. A spot machine that is preempted is stopped: `gcloud compute instances
# start NAME` goes on from its records.
set -euo pipefail
if (($# < 3)); then
  sed -n '4s/^#  *//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
name=$1 bucket=$2 image=$3
startup="#! /bin/bash
gcloud auth configure-docker \"\$(cut -d/ -f1 <<<$image)\" --quiet
docker run --rm --gpus=all --network=host $image evaluate gs://$bucket/ckpt \\
  --mesh=1x4 --slots=32 --max-new-tokens=31744 --task=aime \\
  --data=gs://$bucket/aime2025.jsonl --n=32 --out=gs://$bucket/runs/aime &&
  gcloud compute instances delete $name --quiet \\
    --zone=\"\$(curl -sH Metadata-Flavor:Google \\
      http://metadata.google.internal/computeMetadata/v1/instance/zone | cut -d/ -f4)\"
shutdown -h now"
gcloud compute instances create "$name" --machine-type=g2-standard-48 \
  --provisioning-model=SPOT --instance-termination-action=STOP \
  --maintenance-policy=TERMINATE --scopes=cloud-platform --boot-disk-size=200GB \
  --image-family=common-cu128-ubuntu-2204-nvidia-570 \
  --image-project=deeplearning-platform-release \
  --metadata="startup-script=$startup" "${@:4}"
