"""The page of `audiogen demo`, built with Gradio (extra `demo`)."""

import pathlib
from collections.abc import Callable

import gradio as gr

from audiogen_jax.audiogen import AudioGen
from audiogen_jax.cli import door, maker
from audiogen_jax.core.errors import InputError
from audiogen_jax.lm.rules import Sampling

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


def mount(app, blocks: gr.Blocks, folder: pathlib.Path) -> None:
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
  audiogen: AudioGen,
  name: str,
  folder: pathlib.Path,
  stopping: Callable[[], bool],
) -> gr.Blocks:
  """Builds the page.

  Args:
    audiogen: The model.
    name: What to call it.
    folder: Where Gradio keeps its files.
    stopping: Whether the server is about to end: no sound is finished then.
  """

  def respond(
    prompt,
    upload,
    duration_s,
    seed,
    guidance,
    temperature,
    top_k,
    top_p,
    progress=gr.Progress(),  # noqa: B008 (where Gradio looks for it)
  ):
    def report(done: int, total: int) -> None:
      if stopping():
        raise InputError("the server is ending: come back later")
      # The first steps take longest where they have to be compiled.
      progress((done, total), desc="Sampling" if done else "Getting ready")

    try:
      made = maker.make(
        audiogen,
        folder,
        prompt=prompt or "",
        upload=pathlib.Path(upload) if upload else None,
        duration_s=duration_s,
        seed=seed,
        sampling=Sampling(
          temperature=temperature,
          top_k=int(top_k),
          top_p=top_p,
          guidance=guidance,
        ),
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
    title="AudioGen",
    analytics_enabled=False,
    delete_cache=(_SWEEP_S, _KEEP_S),
  ) as blocks:
    gr.Markdown(
      f"# AudioGen\n\nDescribe a sound and hear it. Model: {name}.",
      elem_id="title",
    )
    with gr.Row():
      with gr.Column():
        inputs, button = _inputs(audiogen)
      with gr.Column():
        outputs = _outputs()
    gr.on(
      [button.click, inputs[0].submit],
      respond,
      inputs,
      outputs,
      api_name="generate",
      concurrency_limit=1,  # one model, one sound at a time
      show_progress_on=outputs[0],
    )
  # Whoever asks without the page waits in the queue, too.
  return blocks.queue(max_size=_WAITING, api_open=False)


def _inputs(audiogen: AudioGen) -> tuple[list, gr.Button]:
  """The left half: what `respond` takes, in its order, and the button."""
  defaults, size = Sampling(), audiogen.codec.tokens.size
  prompt = gr.Textbox(
    label="Prompt",
    placeholder="What do you want to hear?",
    lines=2,
    autofocus=True,
    elem_id="prompt",
  )
  gr.Examples([[text] for text in _EXAMPLES], inputs=prompt, label="Examples")
  with gr.Row():
    duration_s = gr.Slider(
      0.5,
      maker.LONGEST_S,
      5.0,
      step=0.5,
      label="Seconds",
      info="How long it lasts.",
    )
    seed = gr.Number(
      0,
      label="Seed",
      info="Same seed, same sound.",
      precision=0,
      minimum=0,
      maximum=2**32 - 1,
    )
  guidance = gr.Slider(
    1,
    10,
    audiogen.guidance,
    step=0.1,
    label="Guidance",
    info="More follows the prompt more closely; 1 is none.",
  )
  with gr.Accordion("Continue a sound", open=False):
    upload = gr.Audio(
      sources=["upload"],
      type="filepath",
      label="Sound to continue",
      buttons=[],
      elem_id="upload",
    )
    gr.Markdown(
      "The result begins with it, and the seconds above include it. Of a sound"
      f" longer than {maker.CONTINUED_S:g} s, the last {maker.CONTINUED_S:g} s"
      " are used. The prompt may stay empty."
    )
  with gr.Accordion("Sampling", open=False):
    temperature = gr.Slider(
      0,
      2,
      defaults.temperature,
      step=0.05,
      label="Temperature",
      info="0 always takes the likeliest.",
    )
    top_k = gr.Slider(
      0,
      size,
      min(defaults.top_k, size),
      step=1,
      label="Top-k",
      info="Draw among the k likeliest; 0 for all.",
    )
    top_p = gr.Slider(
      0,
      1,
      defaults.top_p,
      step=0.01,
      label="Top-p",
      info="Draw from the nucleus of this mass, instead of top-k; 0 for off.",
    )
  button = gr.Button("Make the sound", variant="primary", elem_id="make")
  rules = [guidance, temperature, top_k, top_p]
  return [prompt, upload, duration_s, seed, *rules], button


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
