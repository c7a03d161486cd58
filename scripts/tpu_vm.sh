#!/usr/bin/env bash
# Creates a Cloud TPU VM, runs a command of this working tree on all its workers,
# deletes the VM. `tpu_vm.sh --help` says how.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/tpu_vm.sh ACTION --name NAME [flags] [-- COMMAND...]

  up    --type TYPE [--version RUNTIME] [--spot]
        Creates the TPU VM where there is none (one that was preempted is deleted first)
        and installs this tree with jax[tpu] on all its workers. Run the same line again
        after a failure: what is done already is not done again.
  run   -- COMMAND...
        Copies the files that git tracks, as they lie here (`git add -N FILE` adds one),
        and runs COMMAND among them on all workers at once. It ends with the connection,
        and its exit code is this script's. A preempted VM loses its disks: write runs
        to gs:// (`--out gs://bucket/run`); then `up` and the same `run` go on.
  down  deletes the VM

  --project, --zone  else $CLOUDSDK_CORE_PROJECT and $CLOUDSDK_COMPUTE_ZONE, or as
                     gcloud is configured
  --dry-run          prints what would be run, for a VM that is not there yet

The API behind it, `gcloud compute tpus tpu-vm`, is in maintenance, and TPU7x is not
served by it: scripts/cloud/ has tasks for SkyPilot and GKE. Several workers need the
key in the agent: ssh-add ~/.ssh/google_compute_engine

  scripts/tpu_vm.sh up --name moe --type v5litepod-16 --zone us-west4-a --spot
  scripts/tpu_vm.sh run --name moe -- jaxmoe evaluate gs://bucket/ckpt --mesh 4x4 \
    --distributed --slots 32 --task aime --data aime2025.jsonl --n 32 \
    --out gs://bucket/runs/aime
  scripts/tpu_vm.sh down --name moe
TEXT
}

refuse() {
  echo "tpu_vm.sh: $*; see --help" >&2
  exit 2
}

# Prints a command and, unless --dry-run was given, runs it; never with our input.
call() {
  printf '+ %s\n' "${*@Q}" >&2
  if [[ -z $dry ]]; then "$@" </dev/null; fi
}

tpu() { call gcloud compute tpus tpu-vm "$@" --quiet "${where[@]}"; }

on_all() { tpu ssh "$name" --worker=all --ssh-flag=-oServerAliveInterval=15 --command="$1"; }

# https://cloud.google.com/tpu/docs/runtimes
runtime_of() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *) refuse "expected a --type such as v5litepod-16, v5p-8 or v6e-8, found $1; for" \
      "another, give --version too" ;;
  esac
}

# READY, PREEMPTED, ...; ABSENT where there is no such VM.
state() {
  local found error
  if [[ -n $dry ]]; then echo ABSENT && return; fi
  error=$(mktemp)
  if found=$(gcloud compute tpus tpu-vm describe "$name" "${where[@]}" \
    --format='value(state)' 2>"$error" </dev/null); then
    echo "$found"
  elif grep -qi 'not.found' "$error"; then
    echo ABSENT
  else
    cat "$error" >&2
    exit 1
  fi
}

create() {
  local found=''
  found=$(state)
  case $found in
    PREEMPTED | TERMINATED) tpu delete "$name" && found=ABSENT ;;
  esac
  if [[ $found == ABSENT ]]; then
    tpu create "$name" --accelerator-type="$type" --version="$version" "${spot[@]}"
  fi
}

copy_tree() {
  local tree
  tree=$(mktemp -d)/tree.tar.gz
  # Tracked files that are still there, with their changes.
  git -C "$root" ls-files -z --cached --deduplicate |
    (cd "$root" && while IFS= read -r -d '' file; do
      if [[ -e $file ]]; then printf '%s\0' "$file"; fi
    done) | tar -C "$root" --null --files-from=- -czf "$tree"
  tpu scp "$tree" "$name:" --worker=all
  on_all 'mkdir -p jaxmoe && tar -xzf tree.tar.gz -C jaxmoe'
}

# What a worker does to install: any Python from 3.11 on, or one that uv brings.
# shellcheck disable=SC2016  # expanded at the other end
INSTALL='set -e; cd jaxmoe
python=$(for p in python3.13 python3.12 python3.11; do command -v $p && break; done) || true
if [ -x ../venv/bin/pip ]; then :
elif [ -n "$python" ] && $python -m venv ../venv; then :
else
  curl -LsSf https://astral.sh/uv/install.sh | env UV_UNMANAGED_INSTALL="$HOME/uv" sh
  ../uv/uv venv --quiet --seed --clear --python 3.12 ../venv
fi
../venv/bin/pip install --quiet -e ".[tpu]"'

up() {
  [[ -n $type ]] || refuse "expected --type, found none"
  if [[ -z $version ]]; then version=$(runtime_of "$type") || exit 2; fi
  create
  copy_tree
  on_all "$INSTALL"
}

# jax >= 0.8.1 has its coordinator on port 8482, which the automatic firewall rule of a
# slice was reported not to open (jax#35905).
run() {
  ((${#command[@]})) || refuse "expected a command after --, found none"
  copy_tree
  on_all "cd jaxmoe && export JAX_COORDINATOR_PORT=8476 PYTHONUNBUFFERED=1 \
PATH=\"\$HOME/venv/bin:\$PATH\" && exec ${command[*]@Q}"
}

down() { tpu delete "$name"; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name='' type='' version='' dry='' action=${1:-} spot=() where=() command=()
[[ $# == 0 ]] || shift
while (($#)); do
  case $1 in
    --name | --type | --version | --project | --zone)
      [[ -n ${2:-} && $2 != --* ]] || refuse "expected a value after $1, found ${2:-none}"
      case $1 in
        --project | --zone) where+=("$1=$2") ;;
        *) printf -v "${1#--}" %s "$2" ;;
      esac
      shift
      ;;
    --spot) spot=(--spot) ;;
    --dry-run) dry=yes ;;
    --help | -h) action=help ;;
    --) command=("${@:2}") && break ;;
    *) refuse "expected a flag or -- and a command, found $1" ;;
  esac
  shift
done
case $action in
  help | --help | -h) usage ;;
  up | run | down)
    [[ -n $name ]] || refuse "expected --name, found none"
    "$action"
    ;;
  *) refuse "expected up, run or down, found ${action:-nothing}" ;;
esac
