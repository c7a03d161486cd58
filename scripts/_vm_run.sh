# shellcheck shell=bash disable=SC2153  # SLICE is set in _vm.sh
# What tpu_vm.sh and gpu_vm.sh share, second part, sourced after _vm.sh: a command that
# outlives its connection, and its results.

# --- results --------------------------------------------------------------------------

# Status 4: not there. What was collected before stays until the new copy is whole.
collect() {
  local remote=$1 into=$2 status=0
  vm_ssh 0 "$(worker pack "$remote")" || status=$?
  if ((status)); then return "$status"; fi
  vm_get collect.tar.gz "$WORK/collect.tar.gz" || return 1
  if dry; then return; fi
  tar -tzf "$WORK/collect.tar.gz" >/dev/null || return 1
  mkdir -p "$into" && tar -xzf "$WORK/collect.tar.gz" -C "$into" || return 1
}

collect_or_fail() {
  local status=0
  collect "$1" "$2" || status=$?
  if ((status == 4)); then
    fail "expected a directory $1 on worker 0 of $MACHINE, found none; relative paths" \
      "start at ~/jaxmoe_vm/tree, where the command ran"
  elif ((status)); then
    fail "could not collect $1 from $MACHINE; $2 is as it was; run it again"
  fi
}

# Gives a new machine what was collected from the one before it.
push_back() {
  local remote=$1 from=$2 has
  if ! dry && [[ ! -d $from ]]; then return; fi
  has=$(vm_ssh 0 "$(worker has "$remote")") || fail "$MACHINE does not answer"
  if [[ $has == yes ]]; then return; fi
  if ! dry; then
    say "pushing $from to $remote"
    tar -C "$from" -czf "$WORK/push.tar.gz" .
  fi
  if ! vm_put "$WORK/push.tar.gz" || ! vm_ssh all "$(worker unpack "$remote")"; then
    fail "could not push $from to $MACHINE; run the same command again"
  fi
}

# --- the command ----------------------------------------------------------------------

# Runs COMMAND... on all workers and follows it to its end. The exit code goes to
# $WORK/code; without that file it was interrupted, and may be tried again.
run_to_end() {
  local run status=0
  if [[ -n ${FLAG[collect]:-} ]]; then push_back "${FLAG[collect]}" "${FLAG[into]}"; fi
  run=$(date +%Y%m%dT%H%M%S)-$$-$RANDOM
  vm_ssh all "$(worker start "$run" "$@")" || status=$?
  if ((status == 3)); then
    echo 1 >"$WORK/code"
    fail "$MACHINE is busy with another command; follow it with \`$SELF logs\`, or" \
      "stop it by running there: $(worker stop)"
  elif ((status)); then
    fail "could not start the command on $MACHINE"
  fi
  follow "$run"
  finish "$(<"$WORK/ended")"
}

# Returns once the command has ended on all workers, with its exit code in $WORK/ended.
follow() {
  local run=$1 every=${FLAG[every]:-300} slice=$SLICE bad=0 failed_at='' code
  local log=$WORK/log collected=$SECONDS began
  if [[ -n ${FLAG[collect]:-} ]] && ((every < slice)); then
    slice=$((every > 0 ? every : 1)) # timeout takes 0 for no limit
  fi
  : >"$log"
  while :; do
    began=$SECONDS
    vm_ssh 0 "$(worker follow "$(wc -c <"$log" | tr -d ' ')" "$slice")" |
      tee -a "$log" || true
    if ! vm_ssh all "$(worker state "$run")" >"$WORK/states"; then
      vm_check
      ((++bad < TRIES)) ||
        fail "$MACHINE does not answer; the command may go on there: the same command" \
          "again follows it"
      sleep "$POLL"
      continue
    fi
    bad=0
    if dry; then echo 'dry exit 0' >"$WORK/states"; fi
    if grep -Eq ' (lost|none)$' "$WORK/states"; then
      vm_ssh all "$(worker stop)" || true
      fail "the command was lost on $MACHINE: $(tr '\n' ';' <"$WORK/states")"
    fi
    code=$(awk '$2 == "exit" && $3 != 0 { print $3; exit }' "$WORK/states")
    if ! grep -q ' running$' "$WORK/states"; then
      echo "${code:-0}" >"$WORK/ended"
      return
    fi
    if [[ -n $code ]]; then
      failed_at=${failed_at:-$SECONDS}
      if ((SECONDS - failed_at >= GRACE)); then
        say "one worker failed with $code; stopping the others after $GRACE s"
        vm_ssh all "$(worker stop)" || true
        echo "$code" >"$WORK/ended"
        return
      fi
    fi
    if [[ -n ${FLAG[collect]:-} ]] && ((SECONDS - collected >= every)); then
      collect_now
      collected=$SECONDS
    fi
    if ((SECONDS - began < 2)); then sleep "$POLL"; fi
  done
}

collect_now() {
  local status=0
  collect "${FLAG[collect]}" "${FLAG[into]}" || status=$?
  if ((status == 0)); then
    date >"$WORK/collected"
  elif ((status != 4)); then
    say "could not collect ${FLAG[collect]} this time; ${FLAG[into]} is as it was"
  fi
}

# The last lines of all workers if it failed, the results, the exit code.
finish() {
  local code=$1
  if [[ $code != 0 ]]; then
    vm_ssh all "$(worker ending)" || true
    say "the command ended with exit code $code on $MACHINE"
  fi
  if [[ -n ${FLAG[collect]:-} ]]; then
    if [[ $code == 0 ]]; then
      (collect_or_fail "${FLAG[collect]}" "${FLAG[into]}") || code=1
    else
      collect_now
    fi
  fi
  echo "$code" >"$WORK/code"
}

logs() {
  vm_ssh "${FLAG[worker]:-0}" "$(worker follow 0 1000000)" ||
    fail "could not read the log on $MACHINE; has a command been run there?"
}

left() {
  say "left; a command that was started goes on; the same \`run\`, or \`logs\`," \
    "follows it again"
  exit 130
}
