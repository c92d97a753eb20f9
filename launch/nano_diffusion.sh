#!/usr/bin/env bash
# Makes `nano-diffusion`, a small Make-An-Audio, from a folder of ESC-10:
#
#   bash launch/nano_diffusion.sh ESC10 WORK          # without fold 4, to measure
#   bash launch/nano_diffusion.sh ESC10 WORK --all    # of all four folds, to ship
#
# ESC10 holds metadata.csv and the recordings; texts are read by the T5 of `nano`,
# as it comes with the package.  Hours on two CPU cores; killed and started again it
# goes on where it was.  The model is WORK/nano-diffusion in the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if (($# < 2)); then
  sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' launch/nano_diffusion.sh >&2
  exit 2
fi
esc10=$(realpath "$1") && mkdir -p "$2" && work=$(realpath "$2")
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/cache}

mkdir -p "$work/table"
python launch/nano_captions.py "$esc10" "$work/table/captions.csv" "${@:3}"
python launch/nano_loops.py "$work/table/captions.csv" "$work/loops"
for part in table loops; do
  audiogen data build --source csv --root "$work/$part" --out "$work/${part}_sounds"
done
for part in autoencoder vocoder; do
  python -m audiogen_jax.train --config="configs/nano_$part.py" \
    --workdir="$work/$part" --config.data.folders="$work/table_sounds"
done
# Each clip as it is, and three times mixed with another.
audiogen data tokenize "$work/loops_sounds" --model "$work/autoencoder/export" \
  --copies 3 --min-duration 5.12 --out "$work/latents"
python -m audiogen_jax.train --config=configs/nano_diffusion.py \
  --workdir="$work/unet" --config.data.mix=False \
  --config.data.folders="$work/latents" \
  --config.sources.autoencoder="$work/autoencoder/export" \
  --config.sources.vocoder="$work/vocoder/export"
rm -rf "$work/nano-diffusion"
audiogen convert "$work/unet/export" "$work/nano-diffusion" --dtype bfloat16
audiogen info "$work/nano-diffusion"
