"""The page of `audiogen demo`, built with Gradio (extra `demo`)."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import fastapi
import gradio as gr

from audiogen_jax import families
from audiogen_jax.cli import door, maker
from audiogen_jax.core import options
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.options import Option
from audiogen_jax.evaluate.choosing import Scorer

_EXAMPLES = (  # kinds of sound that `nano` has heard
  "a dog barks while rain falls",
  "waves break on the shore",
  "a rooster crows",
  "a crackling fire",
  "a helicopter flies by",
  "a clock is ticking",
)
_WAITING = 32  # visitors; more are asked to come back
_UPLOAD = "200mb"
_MOST = 8  # sounds to choose from
# Files that nobody fetched for an hour go, looked for every five minutes.
_SWEEP_S, _KEEP_S = 300, 3600

_PALE, _STRONG = "#a5b4fc", "#4f46e5"  # of the player's waveform

# What a theme cannot say.
_CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
#title h1 { margin: 0.4em 0 0.1em; }
#title p { margin: 0; color: var(--body-text-color-subdued); }
#prompt textarea { font-size: var(--text-lg); }
#picture { background: white; }
/* Without buttons it is a speck. */
#sound .icon-button-wrapper { display: none; }
"""


def theme() -> gr.themes.Base:
  """Fonts of the visitor's own machine: nothing is fetched from the net."""
  return gr.themes.Default(
    primary_hue="indigo",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
  ).set(body_background_fill="*neutral_50")


def mount(
  app: fastapi.FastAPI, blocks: gr.Blocks, folder: pathlib.Path
) -> None:
  """Serves the page at the root of a FastAPI application.

  Args:
    app: The application.
    blocks: The page.
    folder: Where Gradio keeps its files, the only ones that a call may name.
  """
  app.add_middleware(door.Door, blocks=blocks, folder=folder)
  gr.mount_gradio_app(
    app,
    blocks,
    path="/",
    theme=theme(),
    css=_CSS,
    footer_links=[],
    show_error=False,  # of bugs the log tells more
    max_file_size=_UPLOAD,
    ssr_mode=False,
    mcp_server=False,
  )


def build(
  model: families.TextToAudio,
  sampling: Any,
  name: str,
  folder: pathlib.Path,
  stopping: Callable[[], bool],
  scorer: Scorer | None = None,
) -> gr.Blocks:
  """Builds the page.

  Args:
    model: Any that turns sentences into sound.
    sampling: The options that suit it.
    name: What to call it.
    folder: Where Gradio keeps its files.
    stopping: Whether the server is about to end: no sound is finished then.
    scorer: Chooses among several sounds, where visitors want several.
  """
  inputs: dict[str, gr.components.Component] = {}

  def respond(*values):
    *values, progress = values
    given = dict(zip(inputs, values, strict=True))

    def report(done: int, total: int) -> None:
      if stopping():
        raise InputError("the server is ending: come back later")
      # The first steps take longest where they have to be compiled.
      progress((done, total), desc="Sampling" if done else "Getting ready")

    upload = given.get("upload")
    try:
      made = maker.make(
        model,
        folder,
        prompt=given["prompt"] or "",
        upload=pathlib.Path(upload) if upload else None,
        duration_s=given["duration_s"],
        seed=given["seed"],
        negative=given.get("negative") or "",
        from_s=given.get("from_s"),
        to_s=given.get("to_s"),
        amount=given.get("amount") or None,
        best_of=given.get("best_of", 1),
        scorer=scorer,
        sampling=_chosen(model, sampling, given),
        progress=report,
        note=lambda line: gr.Info(f"{line}."),
      )
    except InputError as error:
      raise gr.Error(f"{error}.", duration=30, print_exception=False) from None
    sound = str(made.sound)
    return (
      sound,
      str(made.picture),
      gr.DownloadButton(value=sound, interactive=True),
    )

  with gr.Blocks(
    title=type(model).__name__,
    analytics_enabled=False,
    delete_cache=(_SWEEP_S, _KEEP_S),
  ) as blocks:
    gr.Markdown(
      f"# {type(model).__name__}\n\nDescribe a sound and hear it. Model:"
      f" {name}.",
      elem_id="title",
    )
    with gr.Row():
      with gr.Column():
        button = _add_inputs(model, sampling, inputs, scorer is not None)
      with gr.Column():
        outputs = _outputs()
    respond.__signature__ = _signature(inputs)
    gr.on(
      [button.click, inputs["prompt"].submit],
      respond,
      list(inputs.values()),
      outputs,
      api_name="generate",
      concurrency_limit=1,  # one model, one sound at a time
      show_progress_on=outputs[0],
    )
  # Whoever asks without the page waits in the queue, too.
  return blocks.queue(max_size=_WAITING, api_open=False)


def _signature(names: Iterable[str]) -> inspect.Signature:
  """What clients call the values, and where Gradio finds its progress."""
  kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
  parameters = [inspect.Parameter(name, kind) for name in names]
  progress = inspect.Parameter("progress", kind, default=gr.Progress())
  return inspect.Signature([*parameters, progress])


def _chosen(
  model: families.TextToAudio, sampling: Any, given: dict[str, Any]
) -> Any:
  """`sampling` with what was moved on the page; whole numbers as such."""
  ranges, changed = getattr(model, "ranges", {}), {}
  for name, option in options.numeric(type(sampling)).items():
    # A slider that ends below the default shows its end.
    _, high = ranges.get(name, option.ends)
    if given.get(name, high) != min(getattr(sampling, name), high):
      changed[name] = option.type(given[name])
  return dataclasses.replace(sampling, **changed)


def _add_inputs(
  model: families.TextToAudio,
  sampling: Any,
  inputs: dict[str, gr.components.Component],
  chooses: bool,
) -> gr.Button:
  """The left half; adds by name what `respond` takes, and returns the button.

  A slider for each number among the family's options; an upload where the
  family can continue sounds, fill or vary them; a negative prompt where it
  reads one; the number of sounds to choose from where something chooses.
  """
  inputs["prompt"] = gr.Textbox(
    label="Prompt",
    placeholder="What do you want to hear?",
    lines=2,
    autofocus=True,
    elem_id="prompt",
  )
  gr.Examples(
    [[text] for text in _EXAMPLES], inputs=inputs["prompt"], label="Examples"
  )
  continues = families.takes(model, "prompt")
  uploads = continues or hasattr(model, "inpaint") or hasattr(model, "vary")
  if uploads:
    inputs["upload"] = _upload("continue" if continues else "edit")
  with gr.Row():
    inputs["duration_s"] = gr.Slider(
      0.5,
      maker.LONGEST_S,
      5.0,
      step=0.5,
      label="Seconds",
      info="How long it lasts.",
    )
    inputs["seed"] = gr.Number(
      0,
      label="Seed",
      info="Same seed, same sound.",
      precision=0,
      minimum=0,
      maximum=2**32 - 1,
    )
  ranges = getattr(model, "ranges", {})
  known = {  # what this model leaves open
    name: option
    for name, option in options.numeric(type(sampling)).items()
    if len(set(ranges.get(name, option.ends))) > 1
  }
  for name, option in known.items():
    if option.first:
      inputs[name] = _slider(option, getattr(sampling, name), ranges)
  if uploads:
    what = "Continue a sound" if continues else "Edit a sound"
    with gr.Accordion(what, open=False):
      inputs["upload"].render()
      if continues:
        gr.Markdown(
          "The result begins with it, and the seconds above include it. Of a"
          f" sound longer than {maker.CONTINUED_S:g} s, the last"
          f" {maker.CONTINUED_S:g} s are used. The prompt may stay empty."
        )
      else:
        gr.Markdown(
          "The result is as long as it, and the seconds above do not count. The"
          " prompt may stay empty."
        )
      inputs |= _edits(model)
  others = [option for option in known.values() if not option.first]
  if others:
    with gr.Accordion("Sampling", open=False):
      for option in others:
        value = getattr(sampling, option.name)
        inputs[option.name] = _slider(option, value, ranges)
  if families.takes(model, "negative"):
    with gr.Accordion("What is not wanted", open=False):
      inputs["negative"] = gr.Textbox(
        label="Negative prompt",
        placeholder="music, speech",
        info="Guidance leads away from it.",
        elem_id="negative",
      )
  if chooses:
    inputs["best_of"] = gr.Slider(
      1,
      _MOST,
      1,
      step=1,
      label="Best of",
      info="Makes so many sounds and keeps the one nearest to the prompt.",
    )
  return gr.Button("Make the sound", variant="primary", elem_id="make")


def _upload(use: str) -> gr.Audio:
  """A sound to use so, placed later."""
  return gr.Audio(
    sources=["upload"],
    type="filepath",
    label=f"Sound to {use}",
    buttons=[],
    elem_id="upload",
    render=False,
  )


def _edits(
  model: families.TextToAudio,
) -> dict[str, gr.components.Component]:
  """What else can become of an upload, where the family can do it."""
  made = {}
  if hasattr(model, "inpaint"):
    with gr.Row():
      for name, label in (("from_s", "Fill from"), ("to_s", "Fill to")):
        made[name] = gr.Number(
          None,
          label=label,
          info="Seconds: this part alone is made again.",
          minimum=0,
          maximum=model.window_s,
        )
  if hasattr(model, "vary"):
    made["amount"] = gr.Slider(
      0,
      1,
      0,
      step=0.05,
      label="Vary",
      info="How much of the upload is made again.",
    )
  return made


def _slider(
  option: Option, value: float | int, ranges: dict[str, tuple]
) -> gr.Slider:
  low, high = ranges.get(option.name, option.ends)
  return gr.Slider(
    low,
    high,
    min(value, high),
    step=option.step,
    label=option.title.capitalize(),
    info=option.help,
  )


def _outputs() -> list:
  """The right half: what `respond` returns."""
  return [
    gr.Audio(
      label="Sound",
      type="filepath",
      interactive=False,
      buttons=[],
      waveform_options=gr.WaveformOptions(
        waveform_color=_PALE, waveform_progress_color=_STRONG
      ),
      elem_id="sound",
    ),
    gr.Image(
      label="Waveform and spectrogram",
      show_label=False,  # it would cover the picture
      type="filepath",
      format="png",
      interactive=False,
      buttons=["fullscreen"],
      elem_id="picture",
    ),
    gr.DownloadButton("Download WAV", interactive=False, elem_id="download"),
  ]
