#!/usr/bin/env bash
# Creates a Cloud TPU VM, installs this working tree on all its workers, runs a command
# on them, brings the results back, deletes the VM. `tpu_vm.sh --help` says how.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_vm.sh
source "$(dirname "${BASH_SOURCE[0]}")/_vm.sh"
# shellcheck source-path=SCRIPTDIR source=_vm_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/_vm_run.sh"

EXTRA=tpu
VALUES="name type zone project version bucket retries every worker"
STATE='' TYPE='' VERSION='' SPOT=''
# What a dry run takes the machine to be.
PRETENDED=ABSENT

usage() {
  cat <<'TEXT'
usage: scripts/tpu_vm.sh ACTION --name NAME [flags] [-- COMMAND...]

  up       --type TYPE [--version RUNTIME] [--spot] [--bucket gs://...]
           Creates the TPU VM, waits until it is READY, copies the files that git tracks
           (as they lie here, changes included; `git add -N FILE` adds one) and installs
           them with jax[tpu] into a virtual environment on all workers. What is done
           already is not done again, so after a failure the same command goes on. A VM
           that was preempted is deleted and created again. --bucket: checks that the
           VM may list it.
  run      [--retries K] [--collect REMOTE LOCAL [--every SECONDS]] -- COMMAND...
           Copies the tree again if it changed and runs COMMAND in it, on all workers at
           once. Follows the log of worker 0 and exits with the command's code, or with
           that of the first worker where it is not 0. The command does not hang on the
           connection: if that is lost, the same `run` follows it again.
           --collect: copies a directory of worker 0 here every SECONDS (300) and at the
           end, and gives it back to a VM that has none.
           --retries: if the VM is preempted, or the command lost, creates the VM again,
           gives back what was collected, and runs the same command; K times at most.
  logs     [--worker I]     the log so far, followed while the command runs (worker 0)
  collect  REMOTE LOCAL     copies a directory of worker 0 here
  status                    the state of the VM and of the command on each worker
  down                      deletes the VM; if there is none, says so

  --name NAME        of the TPU VM
  --project, --zone  else $CLOUDSDK_CORE_PROJECT and $CLOUDSDK_COMPUTE_ZONE, else those
                     of `gcloud config`
  --dry-run          prints all commands, for a VM that is not there yet (`up`) or that
                     is READY (all others), and runs none, not even those that look

A preempted TPU VM loses its disks: what is neither on gs:// nor collected is gone.
REMOTE starts at the directory that COMMAND runs in, unless it begins with /. On several
workers the key has to be in the agent: ssh-add ~/.ssh/google_compute_engine

  scripts/tpu_vm.sh up --name moe --type v5litepod-16 --zone us-west4-a --spot
  scripts/tpu_vm.sh run --name moe --retries 3 --collect runs/aime runs/aime -- \
    python scripts/evaluate.py gs://bucket/ckpt --mesh 4x4 --distributed --slots 32 \
    --task aime --data aime2025.jsonl --n 32 --out runs/aime
  scripts/tpu_vm.sh down --name moe

The hosts of a TPU VM find each other: evaluate.py --distributed needs no addresses.

TEXT
  environment_help
}

# --- gcloud ---------------------------------------------------------------------------

tpu() { call gcloud compute tpus tpu-vm "$@" "${WHERE[@]}"; }

# Without the flag a connection to a machine that was preempted hangs.
vm_ssh() {
  tpu ssh "${FLAG[name]}" --worker="$1" --ssh-flag=-oServerAliveInterval=15 \
    --command="$2"
}

vm_put() {
  tpu scp "$@" "${FLAG[name]}:jaxmoe_vm/" --worker=all \
    --scp-flag=-oServerAliveInterval=15
}

vm_get() {
  tpu scp "${FLAG[name]}:jaxmoe_vm/$1" "$2" --worker=0 \
    --scp-flag=-oServerAliveInterval=15
}

# Sets STATE (ABSENT if there is none), TYPE, VERSION and SPOT.
describe() {
  local fields='value(state,acceleratorType,runtimeVersion,schedulingConfig.spot)'
  local ask=(gcloud compute tpus tpu-vm describe "${FLAG[name]}" "${WHERE[@]}")
  STATE=ABSENT TYPE='' VERSION='' SPOT=''
  show "${ask[@]}" --format="$fields"
  if dry; then
    STATE=$PRETENDED
  elif "${ask[@]}" --format="$fields" </dev/null >"$WORK/found" 2>"$WORK/error"; then
    IFS=$'\t' read -r STATE TYPE VERSION SPOT <"$WORK/found"
    TYPE=${TYPE##*/}
  elif ! grep -q 'NOT_FOUND\|was not found' "$WORK/error"; then
    fail "could not look at $MACHINE: $(<"$WORK/error")"
  fi
}

vm_check() {
  describe
  case $STATE in
    ABSENT | PREEMPTED | TERMINATED | STOPPED | STOPPING | DELETING | UNKNOWN)
      fail "$MACHINE is $STATE"
      ;;
  esac
}

# --- up and down ----------------------------------------------------------------------

# https://cloud.google.com/tpu/docs/runtimes
runtime_of() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *)
      refuse "expected a type such as v5litepod-16, v5p-8, v6e-8 or v4-8, found $1;" \
        "for another, give --version too (gcloud compute tpus tpu-vm versions list)"
      ;;
  esac
}

create() {
  local spot=()
  if [[ -n ${FLAG[spot]:-} ]]; then spot=(--spot); fi
  tpu create "${FLAG[name]}" --accelerator-type="${FLAG[type]}" \
    --version="${FLAG[version]}" "${spot[@]}" ||
    fail "could not create $MACHINE (see above); run the same command again, or try" \
      "another zone"
  PRETENDED=READY
}

delete() {
  tpu delete "${FLAG[name]}" ||
    fail "could not delete $MACHINE (see above); run the same command again"
}

check_same() {
  if [[ -n $TYPE && $TYPE != "${FLAG[type]}" ]]; then
    refuse "expected $MACHINE to be ${FLAG[type]}, found $TYPE; give another --name," \
      "or run \`$SELF down\` first"
  fi
}

# From any state to READY, within a bounded time.
ensure_ready() {
  local end=$((SECONDS + LIMIT)) created=''
  while :; do
    describe
    case $STATE in
      READY)
        check_same
        note "$MACHINE is READY"
        return
        ;;
      ABSENT)
        if [[ -n $created ]]; then fail "$MACHINE was created and is gone"; fi
        create
        created=1
        continue
        ;;
      PREEMPTED | TERMINATED | UNKNOWN)
        if [[ -n $created ]]; then fail "$MACHINE was created and is $STATE"; fi
        say "$MACHINE is $STATE; deleting it, to create it again"
        delete
        ;;
      CREATING | STARTING | RESTARTING | REPAIRING | REIMAGING) check_same ;;
      DELETING | STOPPING) ;;
      *)
        fail "expected $MACHINE to be READY, found $STATE; start it (gcloud compute" \
          "tpus tpu-vm start), or run \`$SELF down\`"
        ;;
    esac
    ((SECONDS < end)) ||
      fail "expected $MACHINE to be READY within $LIMIT s, found $STATE; run the same" \
        "command again to go on waiting, or \`$SELF down\`"
    sleep "$POLL"
  done
}

up() {
  need type v5litepod-16
  if [[ -z ${FLAG[version]:-} ]]; then
    FLAG[version]=$(runtime_of "${FLAG[type]}") || exit 2
  fi
  project_and_zone
  ensure_ready
  install
  if [[ -n ${FLAG[bucket]:-} ]]; then
    vm_ssh 0 "$(worker bucket "${FLAG[bucket]}")" ||
      fail "$MACHINE may not list ${FLAG[bucket]}; give its service account the role" \
        "roles/storage.objectUser there"
  fi
  note "$MACHINE is installed; next: $SELF run --name ${FLAG[name]} -- COMMAND"
}

down() {
  project_and_zone
  PRETENDED=READY
  describe
  if [[ $STATE == ABSENT ]]; then
    say "there is no $MACHINE in ${FLAG[zone]}"
  else
    delete
    note "$MACHINE is deleted"
  fi
}

status() {
  project_and_zone
  PRETENDED=READY
  describe
  if ! dry; then echo "${FLAG[name]}: $STATE $TYPE $VERSION${SPOT:+ spot=$SPOT}"; fi
  if [[ $STATE == READY ]]; then
    vm_ssh all "test ! -e jaxmoe_vm/_vm_worker.sh || $(worker report)" ||
      fail "$MACHINE does not answer by ssh"
  fi
}

# --- run ------------------------------------------------------------------------------

attempt() {
  trap 'exit 130' INT
  ensure_ready
  install
  run_to_end "${COMMAND[@]}"
}

# As one that is to be created again has to be; it says so even when preempted.
remember() {
  describe
  if [[ $STATE == ABSENT ]]; then
    fail "there is no $MACHINE in ${FLAG[zone]}; create it with \`$SELF up\`"
  fi
  if [[ ! $STATE =~ ^(READY|CREATING|STARTING|RESTARTING|REPAIRING|REIMAGING)$ ]] &&
    ((${FLAG[retries]:-0} == 0)); then
    fail "expected $MACHINE to be READY, found $STATE; run \`$SELF up\`, or give" \
      "--retries"
  fi
  FLAG[type]=$TYPE FLAG[version]=$VERSION
  if [[ ${SPOT,,} == true ]]; then FLAG[spot]=1; fi
}

what_is_lost() {
  if [[ -z ${FLAG[collect]:-} ]]; then
    echo "what the command wrote to the disks of a preempted VM is gone"
  elif [[ -e $WORK/collected ]]; then
    echo "${FLAG[into]} holds what was collected last, $(<"$WORK/collected")"
  else
    echo "nothing was collected in this run"
  fi
}

# An attempt runs in a subshell, which ends with its first failure.
run() {
  local left
  whole retries
  whole every
  if [[ -n ${FLAG[every]:-} && -z ${FLAG[collect]:-} ]]; then
    refuse "expected --collect REMOTE LOCAL beside --every, found none; give it"
  fi
  project_and_zone
  PRETENDED=READY
  trap left INT
  remember
  for ((left = ${FLAG[retries]:-0}; ; left--)); do
    (attempt) || true
    if [[ -e $WORK/code ]]; then exit "$(<"$WORK/code")"; fi
    say "the command did not come to its end on $MACHINE; $(what_is_lost)"
    if ((left == 0)); then
      fail "no retry is left; the same command runs it again (after \`$SELF up\`, if" \
        "the VM is gone)"
    fi
    say "trying again in $PAUSE s; $left left"
    sleep "$PAUSE"
  done
}

# --- the command line -----------------------------------------------------------------

main() {
  local action
  parse "$@"
  action=${POSITIONAL[0]:-}
  case $action in
    up) expect up 0 "name type zone project version spot bucket" ;;
    run) expect run 0 "name zone project retries collect every" ;;
    logs) expect logs 0 "name zone project worker" ;;
    collect) expect collect 2 "name zone project" ;;
    status | down) expect "$action" 0 "name zone project" ;;
    *)
      refuse "expected up, run, logs, collect, status or down, found" \
        "${action:-nothing}; see --help"
      ;;
  esac
  need name moe
  MACHINE="TPU VM ${FLAG[name]}"
  whole worker
  case $action in
    logs)
      project_and_zone
      logs
      ;;
    collect)
      project_and_zone
      collect_or_fail "${POSITIONAL[1]}" "${POSITIONAL[2]}"
      ;;
    *) "$action" ;;
  esac
}

main "$@"
