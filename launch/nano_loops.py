r"""Loops of 10 s, for a language model that is not to learn to fall silent.

    python launch/nano_loops.py captions.csv LOOPS

reads a table of `nano_captions.py` and writes LOOPS/captions.csv, the same with
other sounds.  Recordings of ESC-10 that are shorter than 5 s were filled up
with silence.  Here each is cut to what sounds, and repeated: what goes on all
the time (rain) without a gap, single events (a sneeze) with a short one.  Any
5 s of a loop then hold what its caption says.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import soundfile

LOOP_S = 10.0
FADE_S = 0.05
WINDOW_S = 0.05
SILENT_DB = -65.0  # of full scale, in a window
WHOLE_S = 4.9  # what sounds for longer goes on all the time
GAPS_S = 0.2, 0.8


def sounding(sound: np.ndarray, rate_hz: int) -> np.ndarray:
  """From the first window that is not silent to the last."""
  size = int(WINDOW_S * rate_hz)
  windows = sound[: len(sound) // size * size].reshape(-1, size)
  loud = np.sqrt(np.mean(np.square(windows), axis=1)) > 10 ** (SILENT_DB / 20)
  if not loud.any():
    return sound
  first, last = np.flatnonzero(loud)[[0, -1]]
  return sound[first * size : (last + 1) * size]


def loop(sound: np.ndarray, rate_hz: int, draw: np.random.Generator):
  """What sounds, again and again."""
  part, fade = sounding(sound, rate_hz), int(FADE_S * rate_hz)
  whole = len(part) >= WHOLE_S * rate_hz
  ramp = np.linspace(0, 1, fade)
  part = part.copy()
  part[:fade] *= np.sqrt(ramp)
  part[-fade:] *= np.sqrt(ramp[::-1])
  out, at = np.zeros(int(LOOP_S * rate_hz) + len(part)), 0
  while at < LOOP_S * rate_hz:
    out[at : at + len(part)] += part
    gap_s = -FADE_S if whole else draw.uniform(*GAPS_S)
    at += len(part) + int(gap_s * rate_hz)
  return out[: int(LOOP_S * rate_hz)]


def main() -> None:
  """Writes the loops and their table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("table", type=Path, help="from nano_captions.py")
  parser.add_argument("out", type=Path, help="a folder to write")
  given = parser.parse_args()
  given.out.mkdir(parents=True, exist_ok=True)
  with open(given.table, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  for number, path in enumerate(sorted({row["path"] for row in rows})):
    sound, rate_hz = soundfile.read(path, always_2d=True)
    made = loop(sound.mean(axis=1), rate_hz, np.random.default_rng(number))
    soundfile.write(given.out / f"{Path(path).stem}.flac", made, rate_hz)
  with open(given.out / "captions.csv", "w", encoding="utf-8", newline="") as f:
    out = csv.DictWriter(f, list(rows[0]))
    out.writeheader()
    for row in rows:
      out.writerow(row | {"path": f"{Path(row['path']).stem}.flac"})


if __name__ == "__main__":
  main()
