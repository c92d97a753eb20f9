"""What the pages of the house say is so: files, links, commands, flags."""

import pathlib
import re
import shlex

import pytest
import typer

from audiogen_jax import cli
from audiogen_jax.train import configuration

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "audiogen_jax"
ROOMS = sorted(f.parent for f in PACKAGE.glob("*/__init__.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += [room / "README.md" for room in ROOMS]


def named(path):
  return str(path.relative_to(ROOT))


def lines_of_commands():
  """Each line of a fenced block that runs something of ours, with its page."""
  for page in PAGES:
    for block in re.findall(r"```\n(.*?)```", page.read_text(), re.S):
      for line in block.replace("\\\n", " ").splitlines():
        for part in re.split(r" && ", line):
          if re.match(r"audiogen |python -m audiogen_jax", part):
            yield pytest.param(part, id=f"{named(page)}: {part[:60]}")


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_a_room_says_what_is_in_it(room):
  page = (room / "README.md").read_text()
  files = {f.name for f in room.glob("*.py") if f.read_text().strip()}
  first = page.partition("\n## ")[0]  # further tables are the room's figures
  table = set(re.findall(r"^\| `(\w+\.py)` \|", first, re.M))
  assert table == files
  assert re.search(r"^## A new ", page, re.M), "how to add to it is not said"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
  for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
    assert (page.parent / link).exists(), link


def test_the_landing_page_is_short():
  assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("line", [*lines_of_commands()])
def test_commands_are_those_that_there_are(line):
  words = shlex.split(line, comments=True)
  if words[0] == "python":
    _check_module(words[2], words[3:])
    return
  command, words = typer.main.get_command(cli.flags.expand(cli.app)), words[1:]
  context = typer.Context(command)
  while hasattr(command, "commands"):
    command = command.commands[words.pop(0)]
    settings = command.context_settings
    context = typer.Context(command, parent=context, **settings)
  command.make_parser(context).parse_args(words)  # raises for no such option


def _check_module(module, words):
  """Files of configurations, and the keys that are changed in them."""
  if module != "audiogen_jax.train":
    assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    return
  flags = dict(word.lstrip("-").split("=", 1) for word in words)
  path, *variant = flags.pop("config").split(":")
  assert flags.pop("workdir")
  config = configuration.load(":".join([str(ROOT / path), *variant]))
  for key, value in flags.items():
    configuration.change(config, key.removeprefix("config."), value)
