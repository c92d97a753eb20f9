"""Repositories of the hub, of which only what is read here is downloaded."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from audiogen_jax.core.errors import InputError


def download(
  hub_id: str, wanted: Callable[[Sequence[str]], Sequence[str]]
) -> str:
  """The folder with a repository's files.

  Args:
    hub_id: Such as "facebook/audiogen-medium".
    wanted: Patterns of the files to download, from the names of all.

  Raises:
    InputError: If there is none, or no network.
  """
  try:
    return _fetched(hub_id, wanted)
  except Exception as error:  # the hub's errors have no common ancestor
    name = hub_id if len(hub_id) < 100 else f"{hub_id[:96]} …"
    reason = " ".join(str(error).split()).split(". ")[0]
    raise InputError(
      f"{name} is neither a folder here nor could it be had from the hub"
      f" ({type(error).__name__}: {textwrap.shorten(reason, 200)}); download it"
      f" elsewhere (hf download {name} --local-dir DIR) and name the folder"
    ) from None


def holds(folder: str | None) -> bool:
  """Whether this is a folder that `download` gave."""
  cache = Path(constants.HF_HUB_CACHE).absolute()
  return folder is not None and Path(folder).is_relative_to(cache)


def _fetched(
  hub_id: str, wanted: Callable[[Sequence[str]], Sequence[str]]
) -> str:
  """The folder with those files of a hub repository that are read here."""
  try:
    found = huggingface_hub.model_info(hub_id, timeout=10).siblings
  except huggingface_hub.errors.HfHubHTTPError:
    raise  # the hub answered, and said no
  except Exception:  # no network: what was downloaded before may do
    return huggingface_hub.snapshot_download(hub_id, local_files_only=True)
  names = [file.rfilename for file in found]
  return huggingface_hub.snapshot_download(
    hub_id, allow_patterns=list(wanted(names))
  )
