"""Configurations: whole, changed by the command line, typed and bounded."""

import dataclasses
import typing

import pytest
from test_configs import ROOT

from audiogen_jax.core.errors import InputError
from audiogen_jax.train import __main__ as training
from audiogen_jax.train import configuration
from audiogen_jax.train.codec_task import CodecTask
from audiogen_jax.train.lm_task import LMTask
from audiogen_jax.train.loop import RunConfig

LM = f"{ROOT / 'configs' / 'lm_300m.py'}:tiny"
CODEC = f"{ROOT / 'configs' / 'codec_16khz.py'}:tiny"


def numbers(cls, where=""):
  """Fields that hold numbers, of a dataclass and those in it."""
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    hint, name = hints[field.name], f"{where}{field.name}"
    if dataclasses.is_dataclass(hint):
      yield from numbers(hint, f"{name}.")
    elif {int, float} & {hint, *typing.get_args(hint)}:
      yield name


def test_every_number_has_a_range():
  for cls in (RunConfig, LMTask, CodecTask):
    for name in numbers(cls):
      if not name.startswith("mesh"):
        assert name.rpartition(".")[2] in configuration._RANGES, name


@pytest.mark.parametrize("text", [LM, CODEC])
def test_every_key_can_be_set(text, monkeypatch, tmp_path):
  """From any folder, whatever the dataclasses hold."""
  monkeypatch.chdir(tmp_path)
  values = configuration.load(text)
  _, task = configuration.parse(values)
  keys = {line.partition("=")[0] for line in configuration.lines(values)}
  for cls in (RunConfig, type(task)):
    missing = set(numbers(cls)) - keys
    assert not {name for name in missing if not name.startswith("mesh")}


def test_the_ablation_of_the_paper_can_be_run():
  values = configuration.load(LM)
  for key, text in {
    "data.mix": "true",
    "data.mixing.chance": "0.25",
    "data.mixing.min_snr_db": "-10",
    "lora.where": "self_attn/qkv",
    "data.prefetch": "7",
    "lm.pattern.delays": "(0, 2, 4, 6)",
    "dtype": "'float32'",
  }.items():
    configuration.change(values, key, text)
  run, task = configuration.parse(values)
  assert run.data.mix and run.data.mixing.chance == 0.25
  assert run.data.mixing.min_snr_db == -10 and run.data.prefetch == 7
  assert task.lora.where == "self_attn/qkv" and task.dtype == "float32"
  assert task.lm.pattern.delays == (0, 2, 4, 6)


@pytest.mark.parametrize(
  ("config", "change", "words"),
  [
    (LM, "loop.steps.foo=3", "no key 'loop.steps.foo'; did you mean"),
    (LM, "data.mix.chance=0.3", "did you mean 'data.mixing.chance'"),
    (LM, "optim.lrr=3", "did you mean 'optim.lr'"),
    (LM, f"{'x' * 900}=3", "--print shows all"),
    (LM, "loop.steps=abc", "config.loop.steps = 'abc' must be of type int"),
    (LM, "loop.steps=2.5", "must be of type int"),
    (LM, "loop=3", "must be of type ConfigDict"),
    (LM, "loop.steps=" + "9" * 5000, "must lie in|must be of type"),
    (LM, "data.duration_s=1e9", "data.duration_s = 1000000000.0 must lie in"),
    (LM, "data.duration_s=-1", "data.duration_s = -1.0 must lie in"),
    (LM, "data.mixing.chance=1.5", "data.mixing.chance = 1.5 must lie in"),
    (LM, "encodec.rvq.size=0", "encodec.rvq.size = 0 must lie in"),
    (LM, "lm.transformer.layers=10**9", "must be of type int"),
    (LM, "lm.transformer.layers=1000000000", "layers = 1000000000 must lie"),
    (LM, "lm.transformer.heads=0", "heads = 0 must lie in 1 to"),
    (LM, "dtype=float16", "dtype = 'float16' is not one of"),
    (CODEC, "encodec.seanet.ratios=()", "ratios () must be one whole number"),
    (CODEC, "encodec.seanet.ratios=(8, 0)", "ratios = 0 must lie in"),
    (CODEC, "encodec.seanet.filters=-3", "filters = -3 must lie in"),
    (CODEC, "weights.mel=nan", "must be of type float"),
    (CODEC, "adversary.n_ffts=(0,)", "n_ffts = 0 must lie in 16 to"),
    (CODEC, "optim.lr=0", "optim.lr = 0.0 must lie in"),
  ],
)
def test_values_that_cannot_be(config, change, words):
  key, _, text = change.partition("=")
  pattern = words.replace("(", r"\(").replace(")", r"\)")
  with pytest.raises(InputError, match=pattern) as error:
    values = configuration.load(config)
    configuration.change(values, key, text)
    configuration.parse(values)
  assert len(str(error.value)) < 500


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (None, "is not there; give configs/NAME.py"),
    ("x = 1", "AttributeError"),
    ("def get_config(v): return 1/0", "ZeroDivisionError"),
    ("def get_config(v): return {}", "returns no ConfigDict"),
    ("import nothing_like_it", "nothing_like_it"),
    ("def (", "SyntaxError"),
  ],
)
def test_files_that_are_no_configurations(tmp_path, text, words):
  path = tmp_path / "c" / "own.py"
  path.parent.mkdir()
  if text is not None:
    path.write_text(text)
  with pytest.raises(InputError, match=words):
    configuration.load(str(path))


def test_the_command_line(capsys):
  arguments = ["train", f"--config={LM}", "--config.loop.steps=7", "--print"]
  with pytest.raises(SystemExit) as end:
    training.parse_flags(arguments)
  output, _ = capsys.readouterr()
  assert not end.value.code and "loop.steps=7\n" in output
  for more, words in (
    (["--config.loop.stepz=7"], "did you mean 'loop.steps'"),
    (["--workdirr=a"], "workdirr"),
    (["loose"], "'loose' is no option here"),
  ):
    with pytest.raises(SystemExit) as end:
      training.parse_flags(["train", f"--config={LM}", *more])
    _, errors = capsys.readouterr()
    assert end.value.code == 2 and words in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize(
  ("changes", "length"),
  [
    ({}, 4000),  # of the configuration
    ({"loop.steps": "120"}, 120),
    ({"loop.steps": "120", "optim.steps": "200"}, 200),
  ],
)
def test_a_schedule_is_as_long_as_training(changes, length):
  """Unless it is given a length of its own."""
  values = configuration.load(f"{ROOT / 'configs' / 'nano_codec.py'}")
  for key, text in changes.items():
    configuration.change(values, key, text)
  _, task = configuration.parse(values)
  rate = task.optim.rate()
  assert task.optim.schedule == "cosine" and task.optim.steps == length
  assert float(rate(length)) == 0 < float(rate(length - 1))
