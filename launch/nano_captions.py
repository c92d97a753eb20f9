r"""Captions for ESC-10: several phrasings for each recording.

    python launch/nano_captions.py ESC10 captions.csv [--all]

reads ESC10/metadata.csv (file, fold, label, title, license) and writes a table
for `audiogen data build --source csv`.  Every recording stands there several
times, with other words: what its title tells, some ways to say what is heard,
and some that go on after another sentence, as mixing joins them ("a dog barks"
"while rain falls").  Fold 4 is for validation; with --all also for training.
"""

import argparse
import csv
import random
from pathlib import Path

from audiogen_jax.data import captions

# By label: what is heard as a sentence, and as a thing.
SENTENCES = {
  "dog bark": (
    "a dog barks",
    "a dog is barking",
    "dogs bark",
    "a dog barking loudly",
  ),
  "rain": ("rain falls", "it is raining", "rain is falling", "rain pours down"),
  "sea waves": (
    "waves break on the shore",
    "sea waves roll in",
    "waves crash on a beach",
    "the sea is rushing",
  ),
  "baby cry": (
    "a baby cries",
    "a baby is crying",
    "a crying baby",
    "an infant cries loudly",
  ),
  "clock tick": (
    "a clock ticks",
    "a clock is ticking",
    "a ticking clock",
    "the clock ticks steadily",
  ),
  "person sneeze": (
    "a person sneezes",
    "someone sneezes",
    "a man sneezes",
    "somebody is sneezing",
  ),
  "helicopter": (
    "a helicopter flies by",
    "a helicopter is flying",
    "a helicopter hovers overhead",
    "the rotor of a helicopter",
  ),
  "chainsaw": (
    "a chainsaw runs",
    "a chainsaw is cutting wood",
    "someone saws with a chainsaw",
    "a chain saw revs up",
  ),
  "rooster": (
    "a rooster crows",
    "a rooster is crowing",
    "a cock crows",
    "the crow of a rooster",
  ),
  "fire crackling": (
    "a fire crackles",
    "fire is crackling",
    "a crackling fire",
    "wood burns and crackles",
  ),
}
NAMES = {
  "dog bark": "a barking dog",
  "rain": "rain",
  "sea waves": "sea waves",
  "baby cry": "a crying baby",
  "clock tick": "a ticking clock",
  "person sneeze": "a sneeze",
  "helicopter": "a helicopter",
  "chainsaw": "a chainsaw",
  "rooster": "a crowing rooster",
  "fire crackling": "a crackling fire",
}
SHAPES = ("{0}", "the sound of {1}", "{1}", "recording of {1}", "{1} outside")
JOINED = (
  "while {0}",
  "and {0}",
  "and {1}",
  "with {1} in the background",
  "with {1}",
  "then {0}",
)


def phrasings(label: str, title: str, draw: random.Random) -> list[str]:
  """Captions of one recording, the first from its title."""
  sentences, name = SENTENCES[label], NAMES[label]
  said = [captions.of_title(label, title), label, *draw.sample(sentences, 2)]
  said.append(draw.choice(SHAPES).format(draw.choice(sentences), name))
  for shape in draw.sample(JOINED, 2):
    said.append(shape.format(draw.choice(sentences), name))
  return list(dict.fromkeys(said))


def main() -> None:
  """Writes the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("root", type=Path, help="folder with metadata.csv")
  parser.add_argument("out", type=Path, help="the table to write")
  parser.add_argument("--all", action="store_true", help="train on fold 4, too")
  given = parser.parse_args()
  draw = random.Random(0)
  sounds = {path.name: path for path in given.root.rglob("*.ogg")}
  with open(given.root / "metadata.csv", encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  with open(given.out, "w", encoding="utf-8", newline="") as file:
    out = csv.writer(file)
    out.writerow(("path", "caption", "tags", "split", "licence", "id"))
    for row in rows:
      splits = ["train"] if row["fold"] != "4" or given.all else []
      splits += ["validation"] if row["fold"] == "4" else []
      path = sounds[row["file"]].resolve()
      for i, caption in enumerate(phrasings(row["label"], row["title"], draw)):
        for split in splits:
          name = f"{split}/{row['file']}#{i}"
          out.writerow(
            (path, caption, row["label"], split, row["license"], name)
          )


if __name__ == "__main__":
  main()
