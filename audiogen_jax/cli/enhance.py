"""`audiogen data enhance`: captions for sounds that have none."""

import contextlib
from pathlib import Path
from typing import Annotated

import jax
import typer

from audiogen_jax.cli import scorers, terminal
from audiogen_jax.core import processes
from audiogen_jax.core.sharding import Placement
from audiogen_jax.data import enhance as enhancement
from audiogen_jax.data import experts, shards
from audiogen_jax.data.enhance import EnhanceConfig, EnhanceReport
from audiogen_jax.data.experts import Proposals
from audiogen_jax.evaluate import clap_scorer


def enhance(
  dataset: Annotated[Path, typer.Argument(help="A dataset of sounds.")],
  out: Annotated[
    Path, typer.Option(help="A new folder, or one where this was killed.")
  ],
  bank: Annotated[
    list[Path] | None,
    typer.Option(
      help="Captions to retrieve from: a dataset, .csv with a column caption,"
      " .jsonl, or a text file with a sentence a line; again for another."
    ),
  ] = None,
  captions: Annotated[
    Path | None,
    typer.Option(
      help="What a captioner wrote: .jsonl of id or path, and caption."
    ),
  ] = None,
  scorer: Annotated[
    str,
    typer.Option(help=f"Whose CLAP: {' or '.join(clap_scorer.NAMES)}."),
  ] = scorers.USUAL,
  weights: Annotated[
    Path | None,
    typer.Option(help="The folder with the networks' weights."),
  ] = None,
  every: Annotated[
    bool,
    typer.Option(
      "--all",
      help="For all sounds, if something is nearer than their own captions; not"
      " only for those without a caption, or with their tags for one.",
    ),
  ] = EnhanceConfig.every,
  min_score: Annotated[
    float,
    typer.Option(help="Sounds whose best caption scores less are left out."),
  ] = EnhanceConfig.min_score,
  batch: Annotated[
    int, typer.Option(help="Sounds heard together.")
  ] = EnhanceConfig.batch,
  distributed: Annotated[
    bool,
    typer.Option(
      "--distributed",
      help="One of several processes, as for `tokenize`; the folder must be the"
      " same one for all.",
    ),
  ] = False,
) -> None:
  """Find captions: experts propose, CLAP chooses (Make-An-Audio)."""
  config = EnhanceConfig(every=every, min_score=min_score, batch=batch)
  with processes.distributed() if distributed else contextlib.nullcontext():
    leads = jax.process_index() == 0
    builder = enhancement.opened(dataset)
    proposals = Proposals(
      experts.bank(bank or ()),
      experts.outside(captions, enhancement.ids(builder)) if captions else {},
    )
    with terminal.bar(shown=leads) as bar:
      task = bar.add_task("loading", total=None)
      listener = scorers.clap(scorer, weights, Placement.make(None))

      def progress(what: str, done: int, total: int) -> None:
        bar.update(task, description=what, completed=done, total=total)

      report = enhancement.enhance(
        dataset, out, listener, proposals, config=config, progress=progress
      )
    if leads:
      tell(out, report)


def tell(out: Path, report: EnhanceReport) -> None:
  """Prints what was written and where captions come from."""
  written = ", ".join(f"{n:,} in {s}" for s, n in report.examples.items())
  terminal.say(f"{out}: {written}")
  for origin, count in report.chosen.items():
    terminal.say(f"{origin}: {count:,} captions")
  if report.left_out:
    terminal.say(
      f"left out: {len(report.left_out):,}; all of them, and why, in"
      f" {out / shards.REPORT}"
    )
  for name in (enhancement.REPORT, enhancement.PICTURE):
    if (out / name).exists():
      terminal.say(f"{out / name}")
