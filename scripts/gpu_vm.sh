#!/usr/bin/env bash
# Runs a command on a machine with several GPUs: one process that sees those asked for,
# here, over ssh, or on a Compute Engine instance. `gpu_vm.sh --help` says how.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=_vm.sh
source "$(dirname "${BASH_SOURCE[0]}")/_vm.sh"
# shellcheck source-path=SCRIPTDIR source=_vm_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/_vm_run.sh"

EXTRA=cuda12
VALUES="host gcloud-instance zone project gpus every machine-type accelerator"
VALUES+=" image-family image-project boot-disk-size"
STATE='' TYPE=''
# What a dry run takes the instance to be.
PRETENDED=ABSENT

usage() {
  cat <<'TEXT'
usage: scripts/gpu_vm.sh ACTION [--host USER@HOST | --gcloud-instance NAME] [flags]
                         [-- COMMAND...]

  run      [--gpus 0,1,2,3] [--collect REMOTE LOCAL [--every SECONDS]] -- COMMAND...
           Runs COMMAND as one process with CUDA_VISIBLE_DEVICES as given (without
           --gpus: all of them), and exits with its code. Without a machine: here, in
           this directory. On a machine: copies the tree again if it changed and runs
           COMMAND in it; the command does not hang on the connection: if that is lost,
           the same `run` follows it again. --collect copies a directory of the machine
           here every SECONDS (300) and at the end.
  up       Copies the files that git tracks (as they lie here, changes included;
           `git add -N FILE` adds one) and installs them with jax[cuda12] into a virtual
           environment. What is done already is not done again. The driver has to be
           there. An instance that does not exist is created, one that is stopped (a
           preempted one, say) is started:
             --machine-type TYPE      g2-standard-48, a2-highgpu-8g; to create one
             --accelerator TYPE,COUNT as in type=nvidia-tesla-t4,count=4, where the
                                      machine type has no GPUs of its own
             --image-family, --image-project, --boot-disk-size
                                      common-cu128-ubuntu-2204-nvidia-570,
                                      deeplearning-platform-release, 200GB
             --spot
  logs                    the log so far, followed while the command runs
  collect  REMOTE LOCAL   copies a directory of the machine here
  status                  the state of the instance and of the command
  down                    deletes the instance and its disk; if there is none, says so

  --host USER@HOST        any machine that ssh reaches without a question
  --gcloud-instance NAME  an instance of Compute Engine
  --project, --zone       of the instance; else $CLOUDSDK_CORE_PROJECT and
                          $CLOUDSDK_COMPUTE_ZONE, else those of `gcloud config`
  --dry-run               prints all commands, for an instance that is not there yet
                          (`up`) or that is RUNNING (all others), and runs none

REMOTE starts at the directory that COMMAND runs in, unless it begins with /.

  scripts/gpu_vm.sh run --gpus 0,1 -- python scripts/evaluate.py ckpt --mesh 1x2 ...
  scripts/gpu_vm.sh up --host me@gpubox
  scripts/gpu_vm.sh run --host me@gpubox --gpus 0,1,2,3 --collect runs/gpu runs/gpu -- \
    python scripts/evaluate.py /data/ckpt --mesh 1x4 --task aime \
    --data aime2025.jsonl --n 32 --out runs/gpu

TEXT
  environment_help
}

# --- ssh, gcloud ----------------------------------------------------------------------

SSH_OPTIONS=(-o BatchMode=yes -o ServerAliveInterval=15)

on_host() { [[ -n ${FLAG[host]:-} ]]; }

on_instance() { [[ -n ${FLAG[gcloud-instance]:-} ]]; }

# There is one worker.
vm_ssh() {
  if on_host; then
    call ssh "${SSH_OPTIONS[@]}" "${FLAG[host]}" "$2"
  else
    call gcloud compute ssh "${FLAG[gcloud-instance]}" "${WHERE[@]}" \
      --ssh-flag=-oServerAliveInterval=15 --command="$2"
  fi
}

copy() {
  if on_host; then
    call scp -q "${SSH_OPTIONS[@]}" "$@"
  else
    call gcloud compute scp "$@" "${WHERE[@]}" --scp-flag=-oServerAliveInterval=15
  fi
}

vm_put() { copy "$@" "${FLAG[host]:-${FLAG[gcloud-instance]:-}}:jaxmoe_vm/"; }

vm_get() { copy "${FLAG[host]:-${FLAG[gcloud-instance]:-}}:jaxmoe_vm/$1" "$2"; }

instances() { call gcloud compute instances "$@" "${WHERE[@]}"; }

# Sets STATE (ABSENT if there is none) and TYPE.
describe() {
  local fields='value(status,machineType.basename())'
  local ask=(gcloud compute instances describe "${FLAG[gcloud-instance]}" "${WHERE[@]}")
  STATE=ABSENT TYPE=''
  show "${ask[@]}" --format="$fields"
  if dry; then
    STATE=$PRETENDED
  elif "${ask[@]}" --format="$fields" </dev/null >"$WORK/found" 2>"$WORK/error"; then
    IFS=$'\t' read -r STATE TYPE <"$WORK/found"
  elif ! grep -q 'NOT_FOUND\|was not found' "$WORK/error"; then
    fail "could not look at $MACHINE: $(<"$WORK/error")"
  fi
}

vm_check() {
  if on_host; then return; fi
  describe
  if [[ $STATE =~ ^(ABSENT|TERMINATED|STOPPING|SUSPENDING|SUSPENDED)$ ]]; then
    fail "$MACHINE is $STATE; if it was preempted, its disk is kept: \`$SELF up\`" \
      "starts it, and the same \`run\` goes on from what the command had written"
  fi
}

# --- up and down ----------------------------------------------------------------------

create() {
  local more=()
  need machine-type g2-standard-48
  if [[ -n ${FLAG[accelerator]:-} ]]; then
    more+=(--accelerator="${FLAG[accelerator]}")
  fi
  if [[ -n ${FLAG[spot]:-} ]]; then
    more+=(--provisioning-model=SPOT --instance-termination-action=STOP)
  fi
  instances create "${FLAG[gcloud-instance]}" --machine-type="${FLAG[machine-type]}" \
    --maintenance-policy=TERMINATE --scopes=storage-rw,logging-write \
    --image-family="${FLAG[image-family]:-common-cu128-ubuntu-2204-nvidia-570}" \
    --image-project="${FLAG[image-project]:-deeplearning-platform-release}" \
    --boot-disk-size="${FLAG[boot-disk-size]:-200GB}" "${more[@]}" ||
    fail "could not create $MACHINE (see above); run the same command again, or try" \
      "another zone"
  PRETENDED=RUNNING
}

check_same() {
  local wanted=${FLAG[machine-type]:-}
  if [[ -n $TYPE && -n $wanted && $TYPE != "$wanted" ]]; then
    refuse "expected $MACHINE to be $wanted, found $TYPE; give another name, or run" \
      "\`$SELF down\` first"
  fi
}

# From any state to RUNNING, within a bounded time.
ensure_running() {
  local end=$((SECONDS + LIMIT)) begun=''
  while :; do
    describe
    check_same
    case $STATE in
      RUNNING)
        note "$MACHINE is RUNNING"
        return
        ;;
      ABSENT | TERMINATED)
        if [[ -n $begun ]]; then fail "$MACHINE was started and is $STATE"; fi
        begun=1
        if [[ $STATE == ABSENT ]]; then
          create
          continue
        fi
        note "$MACHINE is TERMINATED; starting it"
        instances start "${FLAG[gcloud-instance]}" ||
          fail "could not start $MACHINE (see above); run the same command again"
        continue
        ;;
      PROVISIONING | STAGING | REPAIRING | STOPPING) ;;
      *)
        fail "expected $MACHINE to be RUNNING, found $STATE; resume it, or run" \
          "\`$SELF down\`"
        ;;
    esac
    ((SECONDS < end)) ||
      fail "expected $MACHINE to be RUNNING within $LIMIT s, found $STATE; run the" \
        "same command again to go on waiting, or \`$SELF down\`"
    sleep "$POLL"
  done
}

up() {
  if on_instance; then ensure_running; fi
  install
  note "$MACHINE is installed; next: $SELF run with the same machine -- COMMAND"
}

down() {
  PRETENDED=RUNNING
  describe
  if [[ $STATE == ABSENT ]]; then
    say "there is no $MACHINE in ${FLAG[zone]}"
    return
  fi
  instances delete "${FLAG[gcloud-instance]}" ||
    fail "could not delete $MACHINE (see above); run the same command again"
  note "$MACHINE is deleted"
}

status() {
  if on_instance; then
    PRETENDED=RUNNING
    describe
    if ! dry; then echo "${FLAG[gcloud-instance]}: $STATE $TYPE"; fi
    if [[ $STATE != RUNNING ]]; then return; fi
  fi
  vm_ssh 0 "test ! -e jaxmoe_vm/_vm_worker.sh || $(worker report)" ||
    fail "$MACHINE does not answer by ssh"
}

# --- run ------------------------------------------------------------------------------

with_gpus() {
  local gpus=${FLAG[gpus]:-}
  if [[ -z $gpus ]]; then return; fi
  if [[ ! $gpus =~ ^[0-9]+(,[0-9]+)*$ ]]; then
    refuse "expected numbers of GPUs after --gpus, found $gpus; give them as in 0,1,2,3"
  fi
  COMMAND=(env CUDA_VISIBLE_DEVICES="$gpus" "${COMMAND[@]}")
}

run_here() {
  if [[ -n ${FLAG[collect]:-} ]]; then
    refuse "expected --host or --gcloud-instance beside --collect, found neither;" \
      "leave --collect out, since what COMMAND writes is here already"
  fi
  show "${COMMAND[@]}"
  if ! dry; then "${COMMAND[@]}"; fi
}

attempt() {
  trap 'exit 130' INT
  vm_check
  install
  run_to_end "${COMMAND[@]}"
}

run() {
  whole every
  if [[ -n ${FLAG[every]:-} && -z ${FLAG[collect]:-} ]]; then
    refuse "expected --collect REMOTE LOCAL beside --every, found none; give it"
  fi
  with_gpus
  if ! on_host && ! on_instance; then
    run_here
    return
  fi
  PRETENDED=RUNNING
  trap left INT
  (attempt) || true
  if [[ -e $WORK/code ]]; then exit "$(<"$WORK/code")"; fi
  fail "the command did not come to its end on $MACHINE; the same command goes on"
}

# --- the command line -----------------------------------------------------------------

# Sets MACHINE and, for an instance, WHERE.
machine() {
  if on_host && on_instance; then
    refuse "expected --host or --gcloud-instance, found both; give one of them"
  elif on_host; then
    MACHINE=${FLAG[host]}
  elif on_instance; then
    MACHINE="instance ${FLAG[gcloud-instance]}"
    project_and_zone
  elif [[ $1 != run ]]; then
    refuse "expected --host or --gcloud-instance for \`$1\`, found neither; give one"
  fi
  if [[ $1 == down ]] && ! on_instance; then
    refuse "expected --gcloud-instance for \`down\`, found --host, which is not ours" \
      "to delete; its directory ~/jaxmoe_vm can be deleted by hand"
  fi
}

main() {
  local action where="host gcloud-instance zone project" making
  making="machine-type accelerator image-family image-project boot-disk-size spot"
  parse "$@"
  action=${POSITIONAL[0]:-}
  case $action in
    up) expect up 0 "$where $making" ;;
    run) expect run 0 "$where gpus collect every" ;;
    collect) expect collect 2 "$where" ;;
    logs | status | down) expect "$action" 0 "$where" ;;
    *)
      refuse "expected up, run, logs, collect, status or down, found" \
        "${action:-nothing}; see --help"
      ;;
  esac
  machine "$action"
  case $action in
    collect) collect_or_fail "${POSITIONAL[1]}" "${POSITIONAL[2]}" ;;
    *) "$action" ;;
  esac
}

main "$@"
