"""`python -m audiogen_jax.train` for the task of `toy.py`."""

import toy
from absl import app, flags
from ml_collections import ConfigDict

from audiogen_jax.train import __main__ as training
from audiogen_jax.train import configuration


def get_config(variant=""):
  del variant
  return ConfigDict(
    {
      "task": "toy",
      "lr": 20.0,
      "loop": {
        "steps": 12,
        "log_every": 1,
        "eval_every": 4,
        "save_every": 4,
        "samples": 1,
      },
      "data": {
        "folders": "",
        "batch": 8,
        "eval_batch": 8,
        "eval_duration_s": 2.0,
        "mix": False,
      },
      "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
      "rules": {"batch": ("data", "fsdp")},
    }
  )


if __name__ == "__main__":
  configuration.TASKS["toy"] = toy.Toy
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(training.main, flags_parser=training.parse_flags)
