"""A cloud with a slice of TPUs, played by small programs on PATH.

What stands in the folder `WORLD` is its state:

  there      of the slice; no file, no slice
  request    of its queued resource; no file, no request
  queue      the states that a request goes through, a line for each look
  full       for each attempt to create a slice why it fails; empty: it does not
  preempt    for each line, the state in which the next slice is taken away
             while its log is followed; empty where it leaves no trace
  breaks     the slice's state after the connection breaks, once; and perhaps
             `killed`, where the host was restarted
  tenths     how long training takes, in tenths of a second
  status     its exit status, a line a run; the last one for ever
  worker/    the home of its one worker
  calls      what gcloud and uv were called with
"""

import pathlib

# Refuses options that the command of that name does not have.
GCLOUD = r"""#!/usr/bin/env bash
printf '%s\n' "$*" >>"$WORLD/calls"
cd "$WORLD/worker"
group=$3 verb=$4 command=""
missing() { echo "ERROR: NOT_FOUND: no $group" >&2; exit 1; }
fresh() { [[ ! -f $1 ]] || { echo "ERROR: ALREADY_EXISTS" >&2; exit 1; }; }
known=' --zone --project '
case $group-$verb in
  tpu-vm-create) known+='--accelerator-type --version --spot ' ;;
  tpu-vm-ssh) known+='--worker --ssh-flag --command ' ;;
  tpu-vm-scp) known+='--worker --scp-flag ' ;;
  queued-resources-create) known+='--node-id --accelerator-type '
    known+='--runtime-version --valid-until-duration --spot ' ;;
  queued-resources-delete) known+='--force --quiet ' ;;
  *-describe) known+='--format ' ;;
  tpu-vm-delete) known+='--quiet ' ;;
  *) echo "ERROR: no command $group $verb" >&2; exit 2 ;;
esac
for word in "$@"; do
  case $word in --command=*) command=${word#--command=} ;; esac
  [[ $word != --* || $known == *" ${word%%=*} "* ]] ||
    { echo "ERROR: unrecognized arguments: $word" >&2; exit 2; }
done
case $group-$verb in
  tpu-vm-describe) cat "$WORLD/there" 2>/dev/null || missing ;;
  tpu-vm-create)
    fresh "$WORLD/there"
    if [[ -s $WORLD/full ]]; then
      why=$(head -n 1 "$WORLD/full"); sed -i 1d "$WORLD/full"
      [[ -z $why ]] || { echo "ERROR: $why" >&2; exit 1; }
    fi
    echo READY >"$WORLD/there" ;;
  tpu-vm-delete) rm "$WORLD/there" 2>/dev/null || missing ;;
  queued-resources-create)
    fresh "$WORLD/request"
    echo WAITING_FOR_RESOURCES >"$WORLD/request" ;;
  queued-resources-describe)
    if [[ $* == *failedData* ]]; then echo "no capacity"; exit; fi
    [[ -f $WORLD/request ]] || missing
    if [[ -s $WORLD/queue ]]; then
      head -n 1 "$WORLD/queue" >"$WORLD/request"
      sed -i 1d "$WORLD/queue"
    fi
    if grep -q ACTIVE "$WORLD/request"; then echo READY >"$WORLD/there"; fi
    cat "$WORLD/request" ;;
  queued-resources-delete)
    rm -f "$WORLD/there"; rm "$WORLD/request" 2>/dev/null || missing ;;
  tpu-vm-scp) cp "$5" "${6#*:}" ;;
  tpu-vm-ssh)
    grep -qs READY "$WORLD/there" || { echo "no route to host" >&2; exit 255; }
    if [[ $command == *worker.sh\ follow* ]]; then
      if [[ -f $WORLD/breaks ]]; then
        read -r state killed <"$WORLD/breaks"; rm "$WORLD/breaks"
        echo "$state" >"$WORLD/there"
        [[ -z $killed ]] ||
          kill -9 $(ps -o ppid= -p "$(<audiogen/pid)") "$(<audiogen/pid)"
        exit 255
      fi
      if [[ -s $WORLD/preempt ]]; then
        until [[ -f $WORLD/training ]]; do sleep 0.05; done
        kill -9 "$(<audiogen/pid)"; rm -r audiogen "$WORLD/training"
        head -n 1 "$WORLD/preempt" >"$WORLD/there"
        sed -i 1d "$WORLD/preempt"
        grep -q . "$WORLD/there" || rm "$WORLD/there"
        exit 255
      fi
    fi
    HOME=$WORLD/worker exec bash -c "$command" ;;
esac
"""
UV = r"""#!/usr/bin/env bash
printf 'uv %s\n' "$*" >>"$WORLD/calls"
if [[ $1 == venv ]]; then
  mkdir -p venv/bin && cp "$WORLD/python" venv/bin/python
fi
"""
PYTHON = r"""#!/usr/bin/env bash
echo "training:$(printf ' <%s>' "$@")"
trap 'echo saved; exit 143' TERM
touch "$WORLD/training"
for _ in $(seq "$(<"$WORLD/tenths")"); do sleep 0.1; done
echo done
status=$(head -n 1 "$WORLD/status")
if (($(wc -l <"$WORLD/status") > 1)); then sed -i 1d "$WORLD/status"; fi
exit "$status"
"""


def build(world: pathlib.Path) -> None:
  """Writes the programs, and a cloud in which training ends well."""
  (world / "worker").mkdir()
  for name, text in {
    "bin/gcloud": GCLOUD,
    "bin/uv": UV,
    "python": PYTHON,
    "tenths": "1",
    "status": "0\n",
    "calls": "",
  }.items():
    path = world / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
