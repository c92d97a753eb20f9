"""From the file of a configuration to what is run: whole, typed and bounded.

    configs/NAME.py:VARIANT -> ConfigDict -> completed -> changed -> dataclasses

A file says what differs from the dataclasses' defaults; completed with them,
whatever a dataclass holds can be seen and set.
"""

import ast
import contextlib
import dataclasses
import difflib
import importlib.util
import sys
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from audiogen_jax.convert import keys
from audiogen_jax.core import config
from audiogen_jax.core.errors import InputError
from audiogen_jax.train.autoencoder_task import AutoencoderTask
from audiogen_jax.train.codec_task import CodecTask
from audiogen_jax.train.diffusion_task import DiffusionTask
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.loop import RunConfig
from audiogen_jax.train.masked_task import MaskedTask
from audiogen_jax.train.task import Task
from audiogen_jax.train.vocoder_task import VocoderTask

# What `config.task` may say; the rest of the configuration is the task's own
# fields, beside those of `RunConfig`.
TASKS = {
  "autoencoder": AutoencoderTask,
  "codec": CodecTask,
  "diffusion": DiffusionTask,
  "lm": LMTask,
  "magnet": MaskedTask,
  "vocoder": VocoderTask,
}

# What begins a change of a key on a command line.
PREFIX = "--config."

_COUNT, _SHARE, _WEIGHT = (0, 1 << 31), (0, 1), (0, 1e6)
_DB = (-200, 200)
_RANGES = keys.RANGES | {
  "steps": _COUNT,
  "seed": (0, (1 << 32) - 1),
  "log_every": _COUNT,
  "eval_every": _COUNT,
  "save_every": _COUNT,
  "keep": (1, 10_000),
  "samples": (0, 1024),
  "profile_step": _COUNT,
  "judge_every": _COUNT,
  "judge_clips": (2, 1 << 20),
  "batch": (1, 1 << 20),
  "eval_batch": (1, 1 << 20),
  "duration_s": (1e-3, 3600),
  "eval_duration_s": (1e-3, 3600),
  "min_fraction": (1e-6, 1),
  "workers": (0, 1024),
  "prefetch": (0, 1024),
  "length": (2, 4096),
  "text_dropout": _SHARE,
  "lr": (1e-12, 1e3),
  "b1": _SHARE,
  "b2": _SHARE,
  "weight_decay": (0, 1e3),
  "warmup": _COUNT,
  "decay": _COUNT,  # steps of a schedule, or a share: each says which
  "decay_rate": _SHARE,
  "clip": _WEIGHT,
  "accumulate": (1, 1 << 20),
  "average_decay": _SHARE,
  "average_every": _COUNT,
  "rank": (0, 1 << 16),
  "alpha": _WEIGHT,
  "iterations": (1, 10_000),
  "revive_below": _SHARE,
  "n_ffts": (16, 1 << 16),
  "periods": (1, 1024),
  "rates": (0, 16),
  "slope": (0, 1),
  "adversarial": _WEIGHT,
  "feature": _WEIGHT,
  "l1": _WEIGHT,
  "l2": _WEIGHT,
  "msspec": _WEIGHT,
  "mel": _WEIGHT,
  "multi_mel": _WEIGHT,
  "paper_mel": _WEIGHT,
  "si_snr": _WEIGHT,
  "balance_norm": (1e-12, 1e6),
  "balance_decay": _SHARE,
  "init_gain": (1e-6, 1e6),
  "init_batches": (1, 10_000),
  "chance": _SHARE,
  "min_snr_db": _DB,
  "max_snr_db": _DB,
  "min_overlap": _SHARE,
  "min_level_db": _DB,
  "max_level_db": _DB,
  "peak": (1e-6, 1),
  "chances": _SHARE,
  "min_event_s": (1e-3, 3600),
  "max_event_s": (1e-3, 3600),
  "share": (1e-6, 0.4),
}


def load(text: str) -> ConfigDict:
  """A configuration by its file and variant, with every key there is.

  Args:
    text: `FILE.py` or `FILE.py:VARIANT`; the file may lie anywhere.

  Raises:
    InputError: If there is none, or it fails.
  """
  name, _, variant = text.partition(":")
  path = Path(name).absolute()
  if not path.is_file():
    raise InputError(f"{name} is not there; give configs/NAME.py")
  # Configurations import their siblings as `configs.NAME`.
  root = str(path.parent.parent)
  if root not in sys.path:
    sys.path.insert(0, root)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None:
    raise InputError(f"{name} is no Python file; give configs/NAME.py")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    values = module.get_config(variant)
  except Exception as error:  # whatever a file that somebody wrote may raise
    raise InputError(f"{name}: {type(error).__name__}: {error}") from None
  if not isinstance(values, ConfigDict):
    raise InputError(f"{name}: get_config returns no ConfigDict")
  return completed(values)


def changed(text: str, words: Iterable[str]) -> ConfigDict:
  """A configuration with what a command line changes of it.

  Args:
    text: As for `load`.
    words: `--config.KEY=VALUE` each, or `--config.KEY` for True.

  Raises:
    InputError: If there is no such configuration or key, a value is of another
      kind, or a word is something else.
  """
  values = load(text)
  for word in words:
    key, sign, value = word.removeprefix(PREFIX).partition("=")
    if not word.startswith(PREFIX) or not key:
      raise InputError(
        f"{word[:100]!r} is no option here; see --help.  A key of the"
        f" configuration is changed by {PREFIX}KEY=VALUE"
      )
    change(values, key, value if sign else "True")
  return values


def completed(values: ConfigDict) -> ConfigDict:
  """A configuration with the defaults of all keys that it leaves out."""
  values.unlock()
  for cls in (RunConfig, _task(values.get("task"))):
    _complete(cls, values)
  values.lock()
  return values


def change(values: ConfigDict, key: str, text: str) -> None:
  """Sets a key to what stands on a command line.

  Raises:
    InputError: If there is no such key, or the value is of another kind.
  """
  names = _names(values)
  if key not in names:
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else "--print shows all"
    raise InputError(f"the configuration has no key {key[:100]!r}; {hint}")
  old, value = names[key], text
  if not isinstance(old, str) or text[:1] in ("'", '"'):
    with contextlib.suppress(
      ValueError, SyntaxError, MemoryError, RecursionError
    ):
      value = ast.literal_eval(text)
    if text.lower() in ("true", "false"):
      value = text.lower() == "true"
  try:
    if isinstance(value, bool) and type(old) in (int, float):
      raise TypeError("True is no number")  # to Python it is
    if isinstance(old, ConfigDict):
      old.update(value)
    else:
      values.update_from_flattened_dict({key: value})
  except (KeyError, AttributeError, TypeError, ValueError):
    kind = type(old).__name__
    raise InputError(
      f"config.{key} = {config.shown(value)} must be of type {kind}, such as"
      f" {config.shown(old)}"
    ) from None


def lines(values: ConfigDict) -> list[str]:
  """Each key and its value, as `--config.KEY=VALUE` takes them."""
  return [
    f"{key}={value}"
    for key, value in _names(values).items()
    if not isinstance(value, ConfigDict)
  ]


def parse(values: ConfigDict | Mapping) -> tuple[RunConfig, Task]:
  """What to run and what to train.

  A schedule without a length of its own gets that of training.

  Raises:
    InputError: For an unknown task or key, or a value that cannot be.
  """
  values = dict(values.items())
  task = _task(values.pop("task", None))
  own = {
    k: values.pop(k) for k in ("loop", "data", "mesh", "rules") & values.keys()
  }
  run = config.build(RunConfig, own, ranges=_RANGES)
  optim = values.get("optim")
  if isinstance(optim, Mapping | ConfigDict) and not optim.get("steps"):
    values["optim"] = dict(optim.items()) | {"steps": run.loop.steps}
  ranges = _RANGES | dict(getattr(task, "ranges", {}))
  return run, config.build(task, values, ranges=ranges)


def recognised(told: Mapping[str, Any]) -> dict[str, Any]:
  """The configuration that a work folder tells, with the name of its task.

  Raises:
    InputError: If no task has such keys.
  """
  own = {field.name for field in dataclasses.fields(RunConfig)}
  for name, cls in TASKS.items():
    keys_ = {field.name for field in dataclasses.fields(cls)}
    if set(told) <= own | keys_ and keys_ - {"seed"} <= set(told):
      return {"task": name} | dict(told)
  raise InputError(
    f"this is no configuration of {' or '.join(TASKS)}: {', '.join(told)[:200]}"
  )


def _task(name: Any) -> type:
  if name not in TASKS:
    raise InputError(f"config.task {name!r} is not one of {', '.join(TASKS)}")
  return TASKS[name]


def _complete(cls: type, values: ConfigDict, whole: Any = None) -> None:
  """Fills in what is left out.

  Args:
    cls: The dataclass.
    values: What there is.
    whole: The instance that stands where nothing does; None for none.
  """
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    name, hint = field.name, hints[field.name]
    default = getattr(whole, name, field.default)
    if dataclasses.is_dataclass(hint):
      if name not in values:
        values[name] = ConfigDict()
      if isinstance(values[name], ConfigDict):
        _complete(hint, values[name], default)
    elif name not in values and default is not dataclasses.MISSING:
      values[name] = default


def _names(values: ConfigDict, prefix: str = "") -> dict[str, Any]:
  """Values by dotted key, those that hold others included."""
  found = {}
  for key, value in values.items():
    found[f"{prefix}{key}"] = value
    if isinstance(value, ConfigDict):
      found |= _names(value, f"{prefix}{key}.")
  return found
