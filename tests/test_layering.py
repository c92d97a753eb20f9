"""Holds the house to its plan: floors, cycles, sizes, names.

A file imports only from lower floors or from its own room, wherever the import
stands: in a function or under TYPE_CHECKING it counts just as much.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "audiogen_jax"
ROOT = Path(__file__).parents[1]

HOUSE = (  # from the ground up
  "core / audio / gan / codec text lm latent diffusion vocoder embedding"
  " / convert"
  " / families text_to_codes text_to_latents"
  " / audiogen magnet make_an_audio data / train evaluate / plan"
  " benchmark / cli"
).split("/")
FLOORS = {room: n for n, rooms in enumerate(HOUSE) for room in rooms.split()}
MAX_LINES = 400
NOT_NOUNS = {"utils", "helpers", "common", "base", "misc"}
FOREIGN_FRAMEWORKS = {"torch", "torchaudio", "tensorflow"}
RIVALS = (  # to run beside ours, if asked for
  f"{PACKAGE}.benchmark.rivals",
  f"{PACKAGE}.benchmark.extractor_rivals",
  f"{PACKAGE}.benchmark.diffusion_rivals",
)
FOREIGN_NAMES = re.compile(r"in_proj_weight|SelfAttention|weight_v\b")


def imports(tree: ast.AST, module: str, is_init: bool) -> Iterator[str]:
  """The dotted names that a file imports, relative ones made absolute.

  `from a import b` gives `a.b`: b may be a module.
  """
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
      source = node.module or ""
      if node.level:
        parts = module.split(".")
        here = parts[: len(parts) - node.level + is_init]
        source = ".".join([*here, *filter(None, [node.module])])
      yield from (f"{source}.{name.name}" for name in node.names)
    elif isinstance(node, ast.Call):  # importlib.import_module("a.b")
      name = ast.unparse(node.func).rpartition(".")[2]
      first = node.args[0] if node.args else None
      if name in ("import_module", "__import__"):
        if isinstance(first, ast.Constant):
          yield str(first.value)


def check_import(module: str, target: str) -> str | None:
  """What is wrong with `module` importing `target`, if anything."""
  top, _, rest = target.partition(".")
  if top in FOREIGN_FRAMEWORKS and module not in RIVALS:
    return f"imports {top}, which {PACKAGE} does without"
  if top != PACKAGE or rest == "__version__":
    return None
  room, wanted = module.split(".")[1], rest.split(".")[0]
  if wanted not in FLOORS:
    return f"imports {target}: import the module that defines it instead"
  if wanted != room and FLOORS[wanted] >= FLOORS[room]:
    return (
      f"{room} (floor {FLOORS[room]}) imports {target} (floor {FLOORS[wanted]})"
    )
  return None


def check_tree(root: Path) -> list[str]:
  """Every breach of the plan in the checkout at `root`."""
  found = []
  modules = {}  # dotted name -> the dotted names it imports
  folders = (PACKAGE, "configs", "launch", "tests")
  files = [f for d in folders for f in sorted((root / d).rglob("*"))]
  for file in (f for f in files if "__pycache__" not in f.parts):
    path = file.relative_to(root)
    if file.stem in NOT_NOUNS:
      found.append(f"{path}: name it after what it holds")
    if file.suffix != ".py":
      continue
    text = file.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > MAX_LINES:
      found.append(f"{path}: {lines} lines, at most {MAX_LINES}")
    if path.parts[0] != PACKAGE:
      continue

    is_init = path.name == "__init__.py"
    parts = path.parent.parts if is_init else path.with_suffix("").parts
    module = ".".join(parts)
    targets = list(imports(ast.parse(text), module, is_init))
    if module == PACKAGE:  # only re-exports, and those lazily
      continue
    modules[module] = targets
    room = parts[1]
    if room not in FLOORS:
      found.append(f"{path}: no room named {room}; add it to HOUSE")
      continue
    if room != "convert":
      names = sorted(set(FOREIGN_NAMES.findall(text)))
      found += [f"{path}: {n} belongs in convert/" for n in names]
    breaches = {check_import(module, target) for target in targets}
    found += [f"{path}: {b}" for b in sorted(filter(None, breaches))]
  return found + check_cycles(modules)


def check_cycles(modules: dict[str, list[str]]) -> list[str]:
  graph = {}
  for module, targets in modules.items():
    known = (t if t in modules else t.rpartition(".")[0] for t in targets)
    graph[module] = {k for k in known if k in modules}
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    return ["import cycle: " + " -> ".join(reversed(error.args[1]))]
  return []


def test_the_house_is_in_order():
  assert check_tree(ROOT) == []


def test_importing_the_package_loads_nothing_heavy():
  heavy = {"jax", "flax", "numpy", "orbax", "transformers", "librosa"}
  code = f"import sys, {PACKAGE}; print(sorted({heavy} & set(sys.modules)))"
  command = [sys.executable, "-c", code]
  out = subprocess.check_output(command, cwd=ROOT, text=True)
  assert out.strip() == "[]"


BREACHES = {
  "upwards": ({"core/a.py": "import audiogen_jax.lm.model"}, "floor 0"),
  "sideways": (
    {"lm/a.py": "from audiogen_jax import codec"},
    f"floor {FLOORS['lm']}",
  ),
  "relative": (
    {"text/a.py": "from ..lm import model"},
    f"floor {FLOORS['text']}",
  ),
  "relative, init": (
    {"text/__init__.py": "from ..lm import a"},
    f"floor {FLOORS['text']}",
  ),
  "in a function": (
    {"audio/a.py": "def f():\n  from audiogen_jax.lm import model"},
    "floor 1",
  ),
  "for types": (
    {"audio/a.py": "if TYPE_CHECKING:\n  import audiogen_jax.cli"},
    "floor 1",
  ),
  "by name": (
    {"core/a.py": "importlib.import_module('audiogen_jax.cli')"},
    "floor 0",
  ),
  "the package": ({"cli.py": "from audiogen_jax import AudioGen"}, "defines"),
  "unknown room": ({"cellar/a.py": ""}, "add it to HOUSE"),
  "cycle": (
    {"lm/a.py": "from audiogen_jax.lm import b", "lm/b.py": "from . import a"},
    "import cycle",
  ),
  "cycle of three": (
    {
      "lm/a.py": "from audiogen_jax.lm.b import x",
      "lm/b.py": "import audiogen_jax.lm.c",
      "lm/c.py": "def f():\n  from . import a",
    },
    "import cycle",
  ),
  "long": ({"lm/a.py": "x = 1\n" * (MAX_LINES + 1)}, "401 lines"),
  "long config": ({"../configs/a.py": "x = 1\n" * 401}, "401 lines"),
  "long test": ({"../tests/test_a.py": "x = 1\n" * 401}, "401 lines"),
  "name of a file": ({"lm/utils.py": ""}, "name it"),
  "name of a folder": ({"lm/common/a.py": ""}, "name it"),
  "foreign name": ({"lm/a.py": "x = 'in_proj_weight'"}, "belongs in convert/"),
  "foreign name, T5": ({"text/a.py": "# SelfAttention"}, "in convert/"),
  "foreign name, codec": ({"codec/a.py": "x.weight_v"}, "in convert/"),
  "torch": ({"convert/a.py": "from torch import nn"}, "imports torch"),
  "tensorflow": ({"data/a.py": "import tensorflow.io"}, "imports tensorflow"),
}


def write_tree(root: Path, files: dict[str, str]) -> None:
  for name, text in files.items():
    file = (root / PACKAGE / name).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_seen(tmp_path, breach):
  files, message = BREACHES[breach]
  write_tree(tmp_path, {"__init__.py": ""} | files)
  found = check_tree(tmp_path)
  assert len(found) == 1 and message in found[0], found


def test_what_the_plan_allows_passes(tmp_path):
  lines = ["from audiogen_jax import __version__", "import tensorflow_datasets"]
  lines += ["from audiogen_jax.core import types", "from . import b"]
  files = {"__init__.py": "from audiogen_jax.audiogen import AudioGen"}
  files |= {"lm/a.py": "\n".join(lines), "lm/b.py": "x = 1\n" * MAX_LINES}
  files |= {"convert/a.py": "x = 'weight_v in_proj_weight SelfAttention'"}
  files |= {"lm/__init__.py": "from audiogen_jax.lm.a import x"}
  write_tree(tmp_path, files)
  assert check_tree(tmp_path) == []
