"""The benchmark of latent diffusion's parts runs.  Nothing here is timed."""

import dataclasses
import json

import pytest

from audiogen_jax.audio import mel
from audiogen_jax.benchmark import diffusion, diffusion_rivals
from audiogen_jax.benchmark.diffusion import PartFigures, Run
from audiogen_jax.core.errors import InputError


@pytest.fixture
def small(monkeypatch):
  """Networks of a few channels, for ours and for those of PyTorch."""
  recipe = dataclasses.replace(mel.MAKE_AN_AUDIO, hop=4)
  made = {
    "UNET": dataclasses.replace(
      diffusion.UNET, filters=32, residual_layers=1, context_width=8
    ),
    "LATENT": dataclasses.replace(
      *(diffusion.LATENT,), mel=recipe, filters=32, residual_layers=1
    ),
    "SOUND": dataclasses.replace(
      diffusion.SOUND,
      mel=recipe,
      filters=8,
      ratios=(2, 2),
      ratio_kernels=(4, 4),
    ),
  }
  for name, config in made.items():
    for module in (diffusion, diffusion_rivals):
      monkeypatch.setattr(module, name, config)


def missing(name, width):
  raise InputError(f"{name} needs torch; {width} columns")


def test_figures_are_medians_of_the_processors_time():
  ours = [Run(1.0, 9.0), Run(2.0, 9.0), Run(30.0, 9.0)]
  figures = PartFigures("unet", ours, [Run(3.0, 1.0), Run(5.0, 1.0)])
  assert figures.ratio == 2.0
  told = json.loads(json.dumps(figures.plain()))
  assert told["ratio"] == 2.0 and told["runs"][0] == {"core_s": 1, "clock_s": 9}
  assert PartFigures("unet", ours, missing="torch").ratio is None


def test_columns_of_a_sound():
  assert diffusion.columns(10) == 80  # 625 frames; 78.1 columns of 8
  assert diffusion.columns(1) == 8


def test_the_command(small, audiogen, monkeypatch, tmp_path):
  monkeypatch.setattr(diffusion_rivals, "open_rival", missing)
  monkeypatch.setattr(diffusion, "columns", lambda _: 2)
  file = tmp_path / "figures.json"
  status, output, errors = audiogen(
    *("benchmark", "diffusion", "--runs", 1, "--json", file)
  )
  assert status == 0, errors
  figures = json.loads(file.read_text())["figures"]
  assert [each["name"] for each in figures] == ["unet", "decoder", "vocoder"]
  assert all(each["missing"].endswith("2 columns") for each in figures)
  assert "needs torch" in " ".join(output.split())


@pytest.mark.torch
def test_a_vocoder_takes_turns(small):
  found = diffusion.compare(
    "vocoder", diffusion_rivals.open_rival, duration_s=0.01, runs=1
  )
  assert len(found.runs) == len(found.rival_runs) == 1 and found.ratio > 0
