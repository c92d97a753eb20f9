#!/usr/bin/env bash
# Makes `nano-magnet`, which fills `nano`'s codes in parallel, from a folder of ESC-10:
#
#   bash launch/nano_magnet.sh ESC10 WORK          # without fold 4, to measure
#   bash launch/nano_magnet.sh ESC10 WORK --all    # of all four folds, to ship
#
# ESC10 holds metadata.csv and the recordings; the codec is that of `nano`, as it
# comes with the package.  Two hours on two CPU cores; killed and started again it
# goes on where it was.  The model is WORK/nano-magnet in the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# < 2)); then
  sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' launch/nano_magnet.sh >&2
  exit 2
fi
esc10=$(realpath "$1") && mkdir -p "$2" && work=$(realpath "$2")
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/cache}

mkdir -p "$work/table"
python launch/nano_captions.py "$esc10" "$work/table/captions.csv" "${@:3}"
python launch/nano_loops.py "$work/table/captions.csv" "$work/loops"
audiogen data build --source csv --root "$work/loops" --out "$work/sounds"
# Each clip as it is, and three times mixed with another.
audiogen data tokenize "$work/sounds" --model nano --copies 3 --out "$work/codes"
python -m audiogen_jax.train --config=configs/nano_magnet.py \
  --workdir="$work/magnet" --config.codec=nano --config.cached_codes=True \
  --config.data.mix=False --config.data.folders="$work/codes"
rm -rf "$work/nano-magnet"
audiogen convert "$work/magnet/export" "$work/nano-magnet" --dtype bfloat16
audiogen info "$work/nano-magnet"
