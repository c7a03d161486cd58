#!/usr/bin/env bash
# shellcheck disable=SC2329  # the last line calls the functions by name
# The part of tpu_vm.sh and gpu_vm.sh that runs on the rented machine. They copy it to
# ~/jaxmoe_vm and call it there; everything it keeps lies beside it:
#
#   tree/   the working tree        venv/  Python and the packages
#   job/    the command: run, command, sum, pid, boot, log, exit
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")"
HERE=$PWD

# --- installing -----------------------------------------------------------------------

# Replaces the files of the last copy and leaves what commands have written. Status 3: a
# command is running, whose files stay as they are.
do_unpack_tree() {
  if alive; then exit 3; fi
  rm -f tree_id
  mkdir -p tree
  tar -tzf tree.tar.gz | grep -v '/$' | sort >files.new
  if [[ -e files ]]; then
    comm -23 files files.new | while IFS= read -r file; do rm -f "tree/$file"; done
  fi
  tar -xzf tree.tar.gz -C tree
  mv files.new files
  printf '%s\n' "$1" >tree_id
}

# The first Python that is new enough and can make environments.
find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    if "$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      printf '%s\n' "$name"
      return
    fi
  done
  return 1
}

# uv brings a Python of its own: no root, no package lists, no lock to wait for.
venv_from_uv() {
  curl -LsSf https://astral.sh/uv/0.8.22/install.sh | env UV_UNMANAGED_INSTALL="$HERE/uv" sh
  uv/uv venv --quiet --seed --python 3.12 venv
}

make_venv() {
  local python
  if venv/bin/python -c 'import pip' 2>/dev/null; then return; fi
  rm -rf venv
  if python=$(find_python); then "$python" -m venv venv; else venv_from_uv; fi
}

# The tree is installed in place, so only new requirements install anything again.
do_install() {
  local wanted
  make_venv
  wanted="$(cksum <tree/pyproject.toml) $1"
  if [[ -e installed && $(<installed) == "$wanted" ]]; then return; fi
  rm -f installed
  (cd tree && ../venv/bin/python -m pip install --quiet -e ".[$1]")
  printf '%s\n' "$wanted" >installed
}

do_bucket() { gcloud storage ls "$1" >/dev/null; }

# --- the command ----------------------------------------------------------------------

boot() { cat /proc/sys/kernel/random/boot_id; }

alive() {
  [[ -s job/pid && ! -e job/exit && $(<job/boot) == "$(boot)" ]] &&
    kill -0 "$(<job/pid)" 2>/dev/null
}

# Starts a command once for each RUN, with no tie to the connection that asked for it.
do_start() {
  local run=$1 sum
  shift
  sum=$(printf '%s\0' "$@" | cksum)
  mkdir -p job
  if [[ -e job/run && $(<job/run) == "$run" ]]; then return; fi
  if alive; then
    if [[ $(<job/sum) != "$sum" ]]; then
      echo "$(hostname): another command is running: $(<job/command)" >&2
      exit 3
    fi
    echo "$(hostname): this command is running already; following it" >&2
  else
    launch "$sum" "$@"
  fi
  printf '%s\n' "$run" >job/run
}

launch() {
  local sum=$1 tries
  shift
  rm -f job/*
  printf '%s\n' "$sum" >job/sum
  printf '%s\n' "$(printf '%q ' "$@")" >job/command
  boot >job/boot
  setsid nohup bash "$HERE/_vm_worker.sh" job "$@" >job/log 2>&1 </dev/null &
  for ((tries = 0; tries < 200; tries++)); do
    if [[ -s job/pid ]]; then return; fi
    sleep 0.05
  done
  echo "$(hostname): the command did not start within 10 s" >&2
  exit 1
}

# The detached process: its own session, so that its number is also its group's.
do_job() {
  local code=0
  echo "$$" >job/pid.new
  mv job/pid.new job/pid
  export VIRTUAL_ENV="$HERE/venv" PATH="$HERE/venv/bin:$PATH" PYTHONUNBUFFERED=1
  (cd tree && exec "$@") || code=$?
  echo "$code" >job/exit.new
  mv job/exit.new job/exit
}

# One line: HOST running | exit CODE | lost | none. Lost: gone without an exit code.
do_state() {
  local found=none
  if [[ -e job/run && $(<job/run) == "$1" ]]; then
    if alive; then found=running; else found=lost; fi
    if [[ -e job/exit ]]; then found="exit $(<job/exit)"; fi
  fi
  echo "$(hostname) $found"
}

do_report() {
  if [[ ! -e job/run ]]; then
    echo "$(hostname): no command was run"
  else
    echo "$(do_state "$(<job/run)"): $(<job/command)"
  fi
}

# The log from byte FROM on, for at most so many SECONDS while the command runs.
do_follow() {
  local from=$(($1 + 1)) seconds=$2
  if [[ ! -e job/log ]]; then
    echo "$(hostname): no command was run" >&2
  elif alive; then
    timeout "$seconds" tail -c "+$from" -s 0.2 -f --pid="$(<job/pid)" job/log ||
      [[ $? == 124 ]]
  else
    tail -c "+$from" job/log
  fi
}

do_ending() { tail -n 20 job/log | sed "s/^/$(hostname): /" >&2; }

do_stop() {
  local tries group
  if ! alive; then return; fi
  group=-$(<job/pid)
  kill -TERM -- "$group"
  # Of the whole group: what bash has started may outlive it.
  for ((tries = 0; tries < 100; tries++)); do
    if ! kill -0 -- "$group" 2>/dev/null; then break; fi
    sleep 0.1
  done
  kill -KILL -- "$group" 2>/dev/null || true
  if [[ ! -e job/exit ]]; then echo 143 >job/exit; fi
}

# --- results --------------------------------------------------------------------------

# Directories are meant as the command means them: from the tree.
place() { case $1 in /*) printf '%s\n' "$1" ;; *) printf 'tree/%s\n' "$1" ;; esac }

do_has() { if [[ -d $(place "$1") ]]; then echo yes; else echo no; fi; }

# Exit code 1 of tar says that a file grew while it was read: so do records.
do_pack() {
  local path
  path=$(place "$1")
  if [[ ! -d $path ]]; then exit 4; fi
  tar -C "$path" -czf collect.part . || [[ $? == 1 ]]
  mv collect.part collect.tar.gz
}

do_unpack() {
  local path
  path=$(place "$1")
  mkdir -p "$path"
  tar -xzf push.tar.gz -C "$path"
}

# Read as one: this file may be replaced while a command runs.
{ "do_$1" "${@:2}"; exit; }
