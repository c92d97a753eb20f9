#!/usr/bin/env bash
# What launch/tpu_pod.sh does on each worker of a slice.
#
#   install          the package and Python, in audiogen/venv
#   start WORDS...   training, so that it outlives the connection
#   follow LINES     its log from there (+1: from the start) until it ends
#   status WORDS...  running: with these words; other: with others; none: it
#                    never ran; a number: what it ended with; lost: it is gone
#                    and left none, as after a restart of the machine
#   stop             asks it to save and end; after ten minutes kills it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# After a restart of the machine the number may be another process's.
running() {
  [[ -f pid ]] &&
    grep -qas audiogen_jax.train "/proc/$(<pid)/cmdline"
}

case ${1-} in
  install)
    # The slice's own Python may be too old.
    export PATH="$HOME/.local/bin:$PATH"
    command -v uv >/dev/null ||
      curl -LsSf https://astral.sh/uv/install.sh | sh
    [[ -d venv ]] || uv venv --quiet --python 3.12 venv
    uv pip install --quiet --python venv/bin/python -e "code[tpu,gcs]"
    ;;
  start)
    if running; then
      echo "error: training runs here already, process $(<pid)" >&2
      exit 2
    fi
    rm -f status pid
    printf ' %q' "${@:2}" >words
    # Training gets SIGTERM itself; the shell around it only notes the end.
    cd code
    nohup setsid bash -c '
      ../venv/bin/python -m audiogen_jax.train "$@" &
      echo $! >../pid.part && mv ../pid.part ../pid
      trap "" TERM
      wait $!
      echo $? >../status.part && mv ../status.part ../status
    ' audiogen "${@:2}" >../log 2>&1 </dev/null &
    while [[ ! -f ../pid ]]; do sleep 0.1; done
    ;;
  follow)
    tail -n "$2" -s 0.2 --pid="$(<pid)" -F log
    ;;
  status)
    if running; then
      printf -v words ' %q' "${@:2}"
      if [[ $words == "$(<words)" ]]; then echo running; else echo other; fi
      exit
    fi
    # The shell around it may be about to write.
    if [[ -f pid && ! -f status ]]; then sleep 1; fi
    if [[ -f status ]]; then
      cat status
    elif [[ -f pid ]]; then
      echo lost
    else
      echo none
    fi
    ;;
  stop)
    if running; then
      kill -TERM "$(<pid)"
      for ((left = ${AUDIOGEN_STOP_S:-600}; left > 0; left--)); do
        running || exit 0
        sleep 1
      done
      echo "error: training does not end; process $(<pid) is killed" >&2
      kill -KILL "$(<pid)"
    fi
    ;;
  *)
    echo "error: ${1-nothing} is not install, start, follow, status or stop" >&2
    exit 2
    ;;
esac
