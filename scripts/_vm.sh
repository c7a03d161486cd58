# shellcheck shell=bash disable=SC2034  # read by those that source it
# What tpu_vm.sh and gpu_vm.sh share: arguments, printing commands before they run, and
# the copy of the working tree. _vm_run.sh goes on from there.
#
# A script that sources these files defines
#   usage                  prints the help
#   vm_ssh WORKER COMMAND  runs a line of shell on a worker (0, 1, ... or all)
#   vm_put FILE...         copies local files into ~/jaxmoe_vm of all workers
#   vm_get FILE LOCAL      copies ~/jaxmoe_vm/FILE of worker 0
#   vm_check               fails if the machine is known to be gone
# and sets MACHINE (what messages call it), EXTRA (of pyproject.toml) and VALUES (the
# flags that take a value).

SELF=$(basename "$0")
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "$SELF: expected bash 4.4 or newer, found $BASH_VERSION; install a newer one" >&2
  exit 2
fi
SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$SCRIPTS")
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

POLL=${JAXMOE_VM_POLL:-10}
LIMIT=${JAXMOE_VM_READY:-1800}
SLICE=${JAXMOE_VM_SLICE:-60}
GRACE=${JAXMOE_VM_GRACE:-180}
PAUSE=${JAXMOE_VM_PAUSE:-60}
TRIES=${JAXMOE_VM_TRIES:-10}

environment_help() {
  cat <<'TEXT'
Environment (seconds, and their defaults):
  JAXMOE_VM_READY 1800   a machine may take to become ready
  JAXMOE_VM_POLL 10      between two looks at a machine, or two tries to connect
  JAXMOE_VM_TRIES 10     failed connections in a row (a number) before giving up
  JAXMOE_VM_SLICE 60     one connection follows the log before the next is made
  JAXMOE_VM_GRACE 180    the other workers may go on once one has failed
  JAXMOE_VM_PAUSE 60     before a retry
TEXT
}

# --- messages -------------------------------------------------------------------------

say() { printf '%s: %s\n' "$SELF" "$*" >&2; }

fail() {
  say "$@"
  exit 1
}

refuse() {
  say "$@"
  exit 2
}

# Words as any POSIX shell reads them back. printf %q writes newlines as $'\n', which
# the login shell at the other end need not know.
quote() {
  local word single="'" escaped="'\\''" words=()
  for word; do
    if [[ ! $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      word="'${word//$single/$escaped}'"
    fi
    words+=("$word")
  done
  printf '%s' "${words[*]}"
}

# Where a message would not be true of a dry run.
note() { if ! dry; then say "$@"; fi; }

show() { printf '+ %s\n' "$(quote "$@")" >&2; }

dry() { [[ -n ${FLAG[dry-run]:-} ]]; }

# Prints a command and, unless --dry-run was given, runs it; never with our input.
call() {
  show "$@"
  if ! dry; then "$@" </dev/null; fi
}

# --- arguments ------------------------------------------------------------------------

declare -A FLAG=()
POSITIONAL=()
COMMAND=()

# Fills FLAG (by name, without dashes), POSITIONAL, and COMMAND (what follows --).
parse() {
  while (($#)); do
    case $1 in
      --)
        COMMAND=("${@:2}")
        return
        ;;
      --help | -h)
        usage
        exit 0
        ;;
      --dry-run | --spot) FLAG[${1#--}]=1 && shift ;;
      --collect)
        value_of "$1" "${2:-}" && value_of "$1" "${3:-}"
        FLAG[collect]=$2 FLAG[into]=$3
        shift 3
        ;;
      --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
      --*)
        if [[ " $VALUES " != *" ${1#--} "* ]]; then
          refuse "expected a flag that --help lists, found $1; see --help"
        fi
        value_of "$1" "${2:-}"
        FLAG[${1#--}]=$2
        shift 2
        ;;
      -*) refuse "expected a flag of two dashes, found $1; see --help" ;;
      *) POSITIONAL+=("$1") && shift ;;
    esac
  done
}

value_of() {
  if [[ -z $2 || $2 == --* ]]; then
    refuse "expected a value after $1, found ${2:-nothing}; see --help"
  fi
}

# Refuses flags that the action does not know, and more or fewer arguments than COUNT.
expect() {
  local action=$1 count=$2 known=" dry-run $3 " name
  for name in "${!FLAG[@]}"; do
    if [[ $known != *" $name "* && $name != into ]]; then
      refuse "expected a flag of \`$action\` (${3// /, }), found --$name; see --help"
    fi
  done
  if ((${#POSITIONAL[@]} != count + 1)); then
    refuse "expected $count arguments for \`$action\`, found" \
      "$((${#POSITIONAL[@]} - 1)); see --help (a command to run stands after --)"
  fi
  if [[ $action == run ]] && ((${#COMMAND[@]} == 0)); then
    refuse "expected a command after --, found none; as in $SELF run ... -- python x.py"
  elif [[ $action != run ]] && ((${#COMMAND[@]})); then
    refuse "expected nothing after \`$action\`, found -- ${COMMAND[*]}; see --help"
  fi
}

need() {
  if [[ -z ${FLAG[$1]:-} ]]; then
    refuse "expected --$1, found none; give it, as in --$1 $2"
  fi
}

whole() {
  if [[ -n ${FLAG[$1]:-} && ! ${FLAG[$1]} =~ ^[0-9]+$ ]]; then
    refuse "expected a whole number after --$1, found ${FLAG[$1]}; give one"
  fi
}

# FLAG[project] or FLAG[zone]: as given, from the environment, or as gcloud is set up.
setting() {
  local name=$1 variable=$2 property=$3
  if [[ -n ${FLAG[$name]:-} ]]; then return; fi
  FLAG[$name]=${!variable:-}
  if [[ -n ${FLAG[$name]} ]]; then return; fi
  show gcloud config get-value "$property"
  if dry; then
    FLAG[$name]=${name^^}
  else
    FLAG[$name]=$(gcloud config get-value "$property" 2>/dev/null </dev/null || true)
  fi
  if [[ -z ${FLAG[$name]} || ${FLAG[$name]} == "(unset)" ]]; then
    refuse "expected a $name, found none; give --$name, set $variable," \
      "or run: gcloud config set $property VALUE"
  fi
}

project_and_zone() {
  setting project CLOUDSDK_CORE_PROJECT project
  setting zone CLOUDSDK_COMPUTE_ZONE compute/zone
  WHERE=(--project="${FLAG[project]}" --zone="${FLAG[zone]}" --quiet)
}

# --- the working tree -----------------------------------------------------------------

worker() { printf 'bash jaxmoe_vm/_vm_worker.sh %s' "$(quote "$@")"; }

# TREE and ARCHIVE: git's own name for the tracked files as they lie here, and a tar of
# them. Index and objects are copies, so that the repository is left as it is.
pack_tree() {
  ARCHIVE=$WORK/tree.tar.gz
  if dry; then
    TREE=TREE
    show git archive --output="$ARCHIVE" "$TREE"
    return
  fi
  (
    cd "$ROOT" || exit 1
    objects=$(cd "$(git rev-parse --git-path objects)" && pwd) || exit 1
    cp "$(git rev-parse --git-path index)" "$WORK/index" || exit 1
    mkdir -p "$WORK/objects"
    export GIT_INDEX_FILE=$WORK/index GIT_OBJECT_DIRECTORY=$WORK/objects
    export GIT_ALTERNATE_OBJECT_DIRECTORIES=$objects
    git add --update . && git write-tree >"$WORK/tree" &&
      git archive --output="$ARCHIVE" "$(<"$WORK/tree")"
  ) || fail "expected $ROOT to be a git working tree; run $SELF from a clone"
  TREE=$(<"$WORK/tree")
}

# Each worker says which tree it has; one that has none says so too.
# shellcheck disable=SC2016  # expanded at the other end
ASK_TREE='mkdir -p jaxmoe_vm && echo "tree $(cat jaxmoe_vm/tree_id 2>/dev/null)"'

# A new machine takes its time until it answers.
first_contact() {
  local tries
  for ((tries = 1; tries <= TRIES; tries++)); do
    if vm_ssh all "$ASK_TREE" >"$WORK/trees"; then return; fi
    if ((tries < TRIES)); then sleep "$POLL"; fi
  done
  fail "$MACHINE does not answer by ssh; several workers need the key in the agent" \
    "(ssh-add ~/.ssh/google_compute_engine); then run the same command again"
}

copy_tree() {
  local status=0
  first_contact
  pack_tree
  if [[ $(sort -u "$WORK/trees") == "tree $TREE" ]]; then return; fi
  vm_put "$ARCHIVE" "$SCRIPTS/_vm_worker.sh" ||
    fail "could not copy the working tree to $MACHINE; run the same command again"
  vm_ssh all "$(worker unpack_tree "$TREE")" || status=$?
  if ((status == 3)); then
    say "a command is running on $MACHINE; until it ends, its files stay as they were"
  elif ((status)); then
    fail "could not unpack the working tree on $MACHINE; run the same command again"
  fi
}

install() {
  copy_tree
  vm_ssh all "$(worker install "$EXTRA")" ||
    fail "could not install on $MACHINE (see above); run the same command again"
}
