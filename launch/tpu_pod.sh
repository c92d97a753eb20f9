#!/usr/bin/env bash
# Trains on a slice of Cloud TPUs.  `bash launch/tpu_pod.sh --help` tells how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'TEXT'
Trains on a slice of Cloud TPUs: creates it, or takes one that is there,
installs, starts on every worker, shows the log, and cleans up.

  bash launch/tpu_pod.sh --name NAME --zone ZONE --type TYPE [OPTIONS] -- \
    --config=configs/lm_1p5b.py --workdir=gs://BUCKET/RUN [--config.KEY=VALUE]

  --name NAME        of the slice
  --zone ZONE        where it is, as us-west4-a
  --type TYPE        as v5litepod-16, v5p-32, v6e-16, v4-32
  --version VERSION  of its software; by default what suits the type
  --project PROJECT  by default gcloud's own
  --spot             cheaper, and may be taken away
  --keep             do not delete it when training ends
  --dry-run          print every command, run none

What stands after -- goes to `python -m audiogen_jax.train`.  The code is that
of this folder, changes that are not committed included.  A slice that was
there before is never deleted.  Ctrl-C lets training save first; run the same
command to go on.
TEXT
}

fail() {
  echo "error: $*" >&2
  exit 2
}

name='' zone='' type='' version='' project='' spot='' keep='' dry=''
while (($#)); do
  case $1 in
    --name | --zone | --type | --version | --project)
      if (($# < 2)) || [[ $2 == -* ]]; then fail "$1 needs a value"; fi
      printf -v "${1#--}" '%s' "$2"
      shift 2
      ;;
    --spot) spot=--spot && shift ;;
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
if [[ -z $keep && " $* " != *" --workdir=gs://"* ]]; then
  fail "the slice is deleted in the end, and all on it: give" \
    "--workdir=gs://BUCKET/RUN after --, or --keep"
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

tpu() { # tpu VERB WORDS...: one gcloud command, or only its text
  local command=(gcloud compute tpus tpu-vm "$1" "${@:2}" "${where[@]}")
  if [[ -n $dry ]]; then
    printf '+%s\n' "$(printf ' %q' "${command[@]}")"
  else
    "${command[@]}"
  fi
}

workers() { # workers WHICH WORDS...: launch/tpu_worker.sh there
  local words
  printf -v words ' %q' "${@:2}"
  tpu ssh "$name" --worker="$1" \
    --command="bash audiogen/code/launch/tpu_worker.sh$words"
}

created='' started=''
work=$(mktemp -d)
# shellcheck disable=SC2329  # by trap
clean_up() {
  local status=$?
  trap - EXIT INT TERM
  rm -rf "$work"
  if [[ -n $started ]]; then
    tell "stopping; the state is saved first"
    workers all stop || true
  fi
  if [[ -n $created && -z $keep ]]; then
    tell "deleting $name"
    tpu delete "$name" --quiet || {
      echo "error: $name may still run, and cost; look in the console" >&2
      status=1
    }
  elif [[ -n $created ]]; then
    tell "$name is left running, and costs"
  fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [[ -z $dry ]] && state=$(tpu describe "$name" --format='value(state)' \
  2>"$work/why"); then
  [[ $state == READY ]] || fail "$name is there but $state, not READY"
  tell "using $name, which is there"
else
  if [[ -z $dry ]] && ! grep -qi 'not.found' "$work/why"; then
    fail "$(tail -n 1 "$work/why")"
  fi
  tell "creating $name ($type)"
  created=1 # also if the command is interrupted half way
  tpu create "$name" --accelerator-type="$type" --version="$version" \
    ${spot:+"$spot"}
fi

tell "sending the code"
code=$work/code.tar.gz
git ls-files -z --cached --others --exclude-standard |
  tar --null --ignore-failed-read -czf "$code" -T - 2>/dev/null
tpu ssh "$name" --worker=all --command="mkdir -p audiogen"
tpu scp "$code" "$name:audiogen/code.tar.gz" --worker=all
tpu ssh "$name" --worker=all --command="rm -rf audiogen/code && \
mkdir audiogen/code && tar -xzf audiogen/code.tar.gz -C audiogen/code"

tell "installing"
workers all install

tell "training"
started=1
workers all start "$@"
lines=+1
while true; do
  # The connection may break; training does not, and is asked for its status.
  workers 0 follow "$lines" || true
  if [[ -n $dry ]]; then
    workers 0 status
    started=''
    exit
  fi
  status=$(workers 0 status || true)
  [[ -z $status ]] || break
  tell "the connection broke; training goes on; trying again in 10 s"
  sleep "${AUDIOGEN_RETRY_S:-10}"
  lines=20
done
started=''
tell "training ended with status $status"
exit "$status"
