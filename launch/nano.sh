#!/usr/bin/env bash
# Makes `nano`, the model that comes with the package, from a folder of ESC-10:
#
#   bash launch/nano.sh ESC10 WORK          # without fold 4, to measure
#   bash launch/nano.sh ESC10 WORK --all    # of all four folds, to ship
#
# ESC10 holds metadata.csv and the recordings.  Hours on two CPU cores; killed and
# started again it goes on where it was.  The model is WORK/nano in the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# < 2)); then
  sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' launch/nano.sh >&2
  exit 2
fi
esc10=$(realpath "$1") && mkdir -p "$2" && work=$(realpath "$2")
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/cache}

mkdir -p "$work/codec_table"
python launch/nano_captions.py "$esc10" "$work/codec_table/captions.csv" "${@:3}"
python launch/nano_loops.py "$work/codec_table/captions.csv" "$work/lm_table"
for part in codec lm; do
  audiogen data build --source csv --root "$work/${part}_table" \
    --out "$work/${part}_sounds"
  flags=()
  if [[ $part == lm ]]; then flags=("--config.codec=$work/codec/export"); fi
  python -m audiogen_jax.train --config="configs/nano_$part.py" \
    --workdir="$work/$part" --config.data.folders="$work/${part}_sounds" \
    "${flags[@]}"
done
rm -rf "$work/nano"
audiogen convert "$work/lm/export" "$work/nano" --dtype bfloat16
audiogen info "$work/nano"
