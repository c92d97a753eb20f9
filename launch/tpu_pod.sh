#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs.  `bash launch/tpu_pod.sh --help` tells how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PREEMPTIONS=20 FAILURES=3 TRIES=30
retry_s=${AUDIOGEN_RETRY_S:-20}

usage() {
  cat <<TEXT
Trains on a slice of Cloud TPUs: creates it, or takes one that is there,
installs, starts on every worker, shows the log, and cleans up.

  bash launch/tpu_pod.sh --name NAME --zone ZONE --type TYPE [OPTIONS] -- \\
    --config=configs/lm_1p5b.py --workdir=gs://BUCKET/RUN \\
    --config.data.folders=gs://BUCKET/DATASET [--config.KEY=VALUE ...]

  --name NAME        of the slice, and of its queued resource
  --zone ZONE        where it is, as us-west4-a
  --type TYPE        as v5litepod-16, v5p-32, v6e-16, v4-32
  --version VERSION  of its software; by default what suits the type
  --project PROJECT  by default gcloud's own
  --queued           request it as a queued resource, and wait for it
  --wait HOURS       at most, in the queue or for another slice after a
                     pre-emption; 24 by default
  --spot             Spot VMs: cheaper, and may be pre-empted.  Then the slice
                     is created again, and training goes on from its last
                     checkpoint, up to $PREEMPTIONS times
  --keep             do not delete it when training ends
  --dry-run          print every command, run none

What stands after -- goes to \`python -m audiogen_jax.train\`.  The code is that
of this folder, changes that are not committed included.  Codec and T5 of the
configurations come from the Hugging Face Hub, which asks no token for them.

Training that was stopped by a signal from elsewhere is started again, up to
$PREEMPTIONS times; one that fails, up to $FAILURES times; bad input (status 2)
ends it.  A broken connection is tried $TRIES times, every $retry_s s; training
does not need it, and the same command finds it again.

A slice that was there before is never deleted.  Ctrl-C and SIGTERM let training
save first; run the same command to go on.  The status is that of training, or
1 if there is no slice any more, or 2 for bad input.
TEXT
}

fail() {
  echo "error: $*" >&2
  exit 2
}

lose() { # there is no slice any more, none that answers, or none yet
  keep=''
  echo "error: $*" >&2
  exit 1
}

name='' zone='' type='' version='' project='' spot='' keep='' dry=''
queued='' wait=''
while (($#)); do
  case $1 in
    --name | --zone | --type | --version | --project | --wait)
      if (($# < 2)) || [[ $2 == -* ]]; then fail "$1 needs a value"; fi
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --spot) spot=--spot && shift ;;
    --queued) queued=1 && shift ;;
    --keep) keep=1 && shift ;;
    --dry-run) dry=1 && shift ;;
    --help | -h) usage && exit ;;
    --) shift && break ;;
    *) fail "$1 is no option of this script; training's stand after --" ;;
  esac
done
for option in name zone type; do
  [[ -n ${!option} ]] || fail "--$option is missing; see --help"
done
(($#)) || fail "nothing to train: give -- --config=... --workdir=gs://..."
if [[ -n $wait && -z $queued$spot ]]; then
  fail "--wait $wait: there is nothing to wait for without --queued or --spot"
fi
wait_s=0
if [[ ${wait:=24} =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
  wait_s=$(awk -v "hours=$wait" 'BEGIN {printf "%d", 3600 * hours}')
fi
((wait_s > 0)) || fail "--wait $wait must be a number of hours above 0"
[[ $type =~ -([0-9]+)$ ]] || fail "--type $type has no size; v5litepod-16 has"
# Up to eight cores are one host.  The next run replaces the folder of the code.
if [[ " $* " != *" --workdir=gs://"* ]] && {
  [[ -z $keep || -n $spot || " $* " != *" --workdir="[/~]* ]] ||
    ((BASH_REMATCH[1] > 8))
}; then
  fail "give --workdir=gs://BUCKET/RUN after --: slices are deleted in the" \
    "end, and hosts have a disk each; one host with --keep, and without" \
    "--spot, may have '~/RUN'"
fi
if [[ -z $version ]]; then
  case $type in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v4-*) version=tpu-ubuntu2204-base ;;
    *) fail "what software suits $type is not known here: give --version" ;;
  esac
fi
[[ -n $dry ]] || command -v gcloud >/dev/null ||
  fail "gcloud is not on PATH: https://cloud.google.com/sdk/docs/install"

where=(--zone="$zone")
if [[ -n $project ]]; then where+=(--project="$project"); fi

tell() { printf '\n== %s\n' "$*" >&2; }

cloud() { # cloud GROUP VERB WORDS...: one gcloud command, or only its text
  local command=(gcloud compute tpus "$@" "${where[@]}")
  if [[ -n $dry ]]; then
    printf '+%s\n' "$(printf ' %q' "${command[@]}")"
  else
    "${command[@]}"
  fi
}

tpu() { cloud tpu-vm "$@"; }
queue() { cloud queued-resources "$@"; }

# A host that was taken away answers nothing, not even that it is gone.
alive=(ConnectTimeout=30 ServerAliveInterval=30 ServerAliveCountMax=4)

remote() { # remote WHICH COMMAND: on these workers
  tpu ssh "$name" --worker="$1" "${alive[@]/#/--ssh-flag=-o}" --command="$2"
}

workers() { # workers WHICH WORDS...: launch/tpu_worker.sh there
  local words
  printf -v words ' %q' "${@:2}"
  remote "$1" "bash audiogen/code/launch/tpu_worker.sh$words"
}

child=''
long() { # long WORDS...: so that a signal is heeded before the command ends
  local status=0
  set -m # a group of its own, which a signal from here ends whole
  "$@" </dev/null &
  child=$!
  set +m
  wait "$child" || status=$?
  child=''
  return "$status"
}

pause() {
  sleep "$retry_s" >/dev/null 2>&1 &
  wait $!
}

look() { # look tpu|queue: its state, MISSING, or nothing if none is told
  local key=state
  [[ $1 == tpu ]] || key=state.state
  if ! state=$("$1" describe "$name" --format="value($key)" 2>"$work/why"); then
    state=''
    if grep -qi 'not.found' "$work/why"; then state=MISSING; fi
  fi
}

taken() { # whether what `look tpu` saw is a slice that does not come back
  case $state in
    MISSING | PREEMPTED | TERMINATED | STOPPING | STOPPED | DELETING) ;;
    *) return 1 ;;
  esac
}

request() { # one attempt to have a slice
  if [[ -z $queued ]]; then
    long tpu create "$name" --accelerator-type="$type" --version="$version" \
      ${spot:+"$spot"}
    return
  fi
  # Ends in the cloud, too, should nobody be here to take the slice.
  long queue create "$name" --node-id="$name" --accelerator-type="$type" \
    --runtime-version="$version" --valid-until-duration="${wait_s}s" \
    ${spot:+"$spot"}
}

line_up() { # waits in the queue; non-zero if there is no slice in the end
  local end=$((SECONDS + wait_s)) before=none
  while true; do
    look queue
    if [[ $state != "$before" ]]; then
      tell "$name in the queue: ${state:-no answer}"
      before=$state
    fi
    case $state in
      ACTIVE) return ;;
      FAILED)
        queue describe "$name" --format="value(state.failedData.error.message)"
        return 1
        ;;
      MISSING | SUSPENDING | SUSPENDED | DELETING) return 1 ;;
    esac
    if ((SECONDS >= end)); then
      tell "no slice within $wait h; --wait sets how long"
      return 1
    fi
    pause
  done
}

obtain() { # a slice; non-zero if there is none
  tell "creating $name ($type)"
  created=1 # also if the command is interrupted half way
  request || return
  if [[ -n $queued && -n $dry ]]; then
    queue describe "$name" --format='value(state.state)'
  elif [[ -n $queued ]]; then
    line_up
  fi
}

obtain_another() { # the same after a pre-emption, when chips may be scarce
  local end=$((SECONDS + wait_s))
  discard || return
  until obtain; do
    ((SECONDS < end)) || return
    tell "no slice now; trying again in $retry_s s"
    pause
    discard || return
  done
}

discard() { # deletes what was created; non-zero if it may still be there
  local i kind=tpu words=(--quiet)
  if [[ -n $queued ]]; then kind=queue words=(--force --quiet); fi
  for ((i = 0; i < TRIES; i++)); do
    ((i == 0)) || pause
    [[ -n $dry ]] || look "$kind"
    [[ $state != MISSING ]] || return 0
    ! "$kind" delete "$name" "${words[@]}" || return 0
  done
  return 1
}

prepare() { # the code and what it needs, on every worker
  tell "sending the code"
  remote all "mkdir -p audiogen" &&
    tpu scp "$code" "$name:audiogen/code.tar" --worker=all \
      "${alive[@]/#/--scp-flag=-o}" &&
    remote all "rm -rf audiogen/code && mkdir audiogen/code && \
tar -xf audiogen/code.tar -C audiogen/code" &&
    tell "installing" &&
    long workers all install
}

follow() { # follow WORDS...: the log; in the end `ended`, see `train`
  local lines=+1 i
  while true; do
    long workers 0 follow "$lines" || true
    for ((i = 1; ; i++)); do
      if ended=$(workers 0 status "$@"); then break; fi
      look tpu
      if taken; then ended=taken && return; fi
      if ((i >= TRIES)); then ended=unheard && return; fi
      tell "no connection to $name (${state:-the cloud is silent, too}):" \
        "attempt $i of $TRIES; the next in $retry_s s"
      pause
    done
    [[ $ended == running ]] || return 0
    tell "the connection broke; training goes on; trying again in $retry_s s"
    pause
    lines=20
  done
}

# train WORDS...: once; leaves in `ended` training's status, or lost (it has
# none), taken (the slice is gone), unheard (no connection), unprepared.
train() {
  if [[ -z $runs ]]; then
    ended=unprepared
    prepare && tell "training" && started=1 &&
      workers all start "$@" && ended=''
    if [[ -n $ended ]]; then
      look tpu
      if taken; then ended=taken; fi
      return
    fi
  fi
  runs='' started=1
  follow "$@"
}

created='' started='' state='' ended='' runs=''
work=$(mktemp -d)
code=$work/code.tar
# shellcheck disable=SC2329  # by trap
clean_up() {
  local status=$?
  trap - EXIT INT TERM
  if [[ -n $child ]]; then kill -- "-$child" 2>/dev/null || true; fi
  if [[ -n $started ]]; then
    tell "stopping; the state is saved first"
    workers all stop || true
  fi
  if [[ -n $created && -z $keep ]]; then
    tell "deleting $name"
    discard || {
      echo "error: $name may still run, and cost; look in the console" >&2
      status=1
    }
  elif [[ -n $created ]]; then
    tell "$name is left running, and costs"
  fi
  rm -rf "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [[ -n $dry ]]; then
  obtain
  prepare
  workers all start "$@"
  workers 0 follow +1
  workers 0 status "$@"
  exit
fi

# Mostly weights, which do not compress.
git ls-files -z --cached --others --exclude-standard |
  tar --null --ignore-failed-read -cf "$code" -T - 2>/dev/null

look tpu
case $state in
  READY)
    tell "using $name, which is there; it is not deleted"
    case $(workers 0 status "$@" 2>/dev/null || true) in
      running)
        tell "training runs there, and is followed"
        runs=1
        ;;
      other)
        fail "$name trains something else; end that first: gcloud compute" \
          "tpus tpu-vm ssh $name --zone=$zone --worker=all" \
          "--command='bash audiogen/code/launch/tpu_worker.sh stop'"
        ;;
    esac
    ;;
  MISSING)
    if [[ -n $queued ]]; then
      look queue
      [[ $state == MISSING ]] || fail "a queued resource $name is there" \
        "(${state:-$(tail -n 1 "$work/why")}): delete it or take another --name"
    fi
    obtain || lose "$name could not be had"
    ;;
  '') fail "$(tail -n 1 "$work/why")" ;;
  *) fail "$name is there but $state: delete it or take another --name" ;;
esac

preempted=0 failed=0
while true; do
  train "$@"
  again=''
  case $ended in
    0 | 2) ;;
    taken)
      tell "$name was taken away ($state)"
      started='' last="the same command goes on from the last checkpoint"
      [[ -n $created ]] || lose "$name was there before: delete it, then $last"
      [[ -n $spot ]] || lose "$name is $state; $last"
      ((++preempted <= PREEMPTIONS)) ||
        lose "$name was taken away $preempted times; $last"
      tell "pre-emption $preempted of at most $PREEMPTIONS: creating it again"
      obtain_another || lose "$name could not be had again; $last"
      continue
      ;;
    unheard)
      created='' started=''
      lose "no connection to $name; training may go on there, and costs: the" \
        "same command follows it; the console, or gcloud, deletes it"
      ;;
    130 | 143) if ((++preempted <= PREEMPTIONS)); then again=1; fi ;;
    *) if ((++failed <= FAILURES)); then again=1; fi ;;
  esac
  case $ended in
    unprepared) tell "training could not be started" ;;
    lost) tell "training is gone without a status; was the host restarted?" ;;
    *) tell "training ended with status $ended" ;;
  esac
  [[ -n $again ]] || break
  # Where one process ended, others may be about to.
  workers all stop || true
  tell "starting it again in $retry_s s"
  pause
done
started=''
[[ $ended =~ ^[0-9]+$ ]] || ended=1
exit "$ended"
