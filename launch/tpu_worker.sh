#!/usr/bin/env bash
# What launch/tpu_pod.sh does on each worker of a slice.
#
#   install          the package and Python, in audiogen/venv
#   start WORDS...   training, so that it outlives the connection
#   follow LINES     its log from there (+1: from the start) until it ends
#   status           what it ended with; nothing while it runs
#   stop             asks it to save and end, and waits
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

running() { [[ -f pid ]] && kill -0 "$(<pid)" 2>/dev/null; }

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
    # Training gets SIGTERM itself; the shell around it only notes the end.
    cd code
    nohup setsid bash -c '
      ../venv/bin/python -m audiogen_jax.train "$@" & echo $! >../pid
      trap "" TERM
      wait $!
      echo $? >../status.part && mv ../status.part ../status
    ' audiogen "${@:2}" >../log 2>&1 </dev/null &
    while [[ ! -f ../pid ]]; do sleep 0.1; done
    ;;
  follow)
    tail -n "$2" --pid="$(<pid)" -F log
    ;;
  status)
    if ! running; then
      sleep 1
      cat status
    fi
    ;;
  stop)
    if running; then
      kill -TERM "$(<pid)"
      while running; do sleep 1; done
    fi
    ;;
  *)
    echo "error: ${1-nothing} is not install, start, follow, status or stop" >&2
    exit 2
    ;;
esac
