"""What kind of sound a clip is: its features, and classifiers of them.

    audio -> mel power -> dB about the clip's own mean -> cepstra: statistics
                                                       -> bands: modulation

Nothing that is no kind of sound may give a clip away:

- not its level: all powers are those of a clip over their mean;
- not its silence: what lies 40 dB below the mean counts as 40 dB below, so that
  zeros behind a recording and the faint noise of a codec are the same;
- not its length: the caller passes clips of one length;
- not the codec: what is trained on is there twice, as it was recorded and as
  the codec gives it back.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from audiogen_jax.audio import mel
from audiogen_jax.audio.mel import MelConfig
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.types import AnyArray

LEAST_S = 0.5  # of a clip: less holds no modulation
_FRAME_S, _HOP_S = 0.064, 0.02
_MELS, _CEPSTRA, _BANDS, _RATES = 64, 20, 8, 12
_FLOOR_DB = 40.0
_PERCENTILES = 5, 25, 50, 75, 95
_FOLDS = 3


def features(
  audio: Float[AnyArray, "b n c"], rate_hz: int
) -> Float[np.ndarray, "b f"]:
  """What is told of each clip; the level and the channels say nothing.

  Statistics over time of 20 cepstra (mean, deviation, that of the differences
  of neighbours, percentiles), and how fast the level of 8 bands changes: 12
  ranges of the spectrum of each, from once a clip to half the frame rate.

  Args:
    audio: Clips of one length, of 0.5 s or more.
  """
  power = np.asarray(_mel(jnp.asarray(audio, jnp.float32), rate_hz))
  # Silence has no kind, and must not divide by zero.
  power = power / np.maximum(power.mean(axis=(1, 2), keepdims=True), 1e-20)
  db = 10 * np.log10(np.maximum(power, 10 ** (-_FLOOR_DB / 10)))
  cepstra = scipy.fft.dct(db, axis=2, norm="ortho")[..., :_CEPSTRA]
  statistics = [
    cepstra.mean(axis=1),
    cepstra.std(axis=1),
    np.diff(cepstra, axis=1).std(axis=1),
    *np.percentile(cepstra, _PERCENTILES, axis=1),
  ]
  b, t, _ = db.shape
  bands = db.reshape(b, t, _BANDS, -1).mean(axis=3)
  bands = (bands - bands.mean(axis=1, keepdims=True)).transpose(0, 2, 1)
  spectrum = np.abs(np.fft.rfft(bands * np.hanning(t))) / t
  edges = np.geomspace(1, spectrum.shape[-1] - 1, _RATES + 1).round()
  edges = np.unique(edges.astype(int))
  ranges = [
    np.log(1e-2 + spectrum[..., low:high].mean(axis=-1))
    for low, high in zip(edges, edges[1:], strict=False)
  ]
  return np.concatenate([*statistics, *ranges], axis=1).astype(np.float32)


@functools.partial(jax.jit, static_argnums=1)
def _mel(
  audio: Float[AnyArray, "b n c"], rate_hz: int
) -> Float[Array, "b t m"]:
  """Mel power, the mean of the channels."""
  bands = MelConfig(
    rate_hz,
    n_fft=max(_MELS, 2 ** round(np.log2(_FRAME_S * rate_hz))),
    hop=max(1, round(_HOP_S * rate_hz)),
    n_mels=_MELS,
  )
  return jnp.mean(mel.spectrogram(bands, jnp.moveaxis(audio, -1, 1)), axis=1)


class Classifier:
  """Classifies clips by `features`.

  Several kinds are tried, each on thirds of the recordings that it has not
  seen, and the best one is trained on all.  The thirds are stretches, in order,
  of each class: neighbours in a dataset are often of one recording.

  Attributes:
    classes: How many.
    name: Name of the kind that was best, such as "SVM, RBF, C = 1".
    accuracy: Cross-validated, in [0, 1]: of recordings as they are, and of
      recordings through the codec.
  """

  def __init__(
    self,
    real: Float[np.ndarray, "b f"],
    coded: Float[np.ndarray, "b f"],
    labels: Int[np.ndarray, " b"],
    *,
    seed: int = 0,
  ) -> None:
    """Trains.

    Args:
      real: Features of recordings.
      coded: Features of those recordings through a codec.
      labels: Classes from 0, each two times or more.
      seed: Seed of the random forest.

    Raises:
      InputError: If there are fewer than two of a class, or only one class.
    """
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < 2:
      raise InputError(
        f"{len(counts)} classes of at least {counts.min()} clips cannot be told"
        " apart; two of two are the least"
      )
    self.classes = len(counts)
    both = np.stack([real, coded])  # versions b f
    best = -1.0, "", None
    for name, model in _candidates(seed).items():
      accuracy = _validate(model, both, labels, min(_FOLDS, int(counts.min())))
      if np.mean(accuracy) > best[0]:
        best = np.mean(accuracy), name, model
        self.accuracy = accuracy
    _, self.name, self._model = best
    _train(self._model, both, labels)

  def rank(
    self, features: Float[np.ndarray, "b f"]
  ) -> Int[np.ndarray, "b classes"]:
    """Classes of each clip, the likeliest first."""
    return _rank(self._model, features)

  def scores(
    self, features: Float[np.ndarray, "b f"]
  ) -> Float[np.ndarray, "b classes"]:
    """What each clip is ranked by: more for a likelier class."""
    return _scores(self._model, features)


class MixClassifier:
  """Says which classes are in a mix, by one binary classifier for each.

  Support vector machines with scikit-learn's defaults, trained on single
  recordings and on mixes of two.  Those of `Classifier`, which was
  trained on no mix, have both classes of one among their first three half as
  often.
  """

  def __init__(
    self,
    features: Float[np.ndarray, "b f"],
    inside: Bool[np.ndarray, "b classes"],
  ) -> None:
    """Trains on features, and on which classes are inside."""
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    self._model = make_pipeline(StandardScaler(), OneVsRestClassifier(SVC()))
    self._model.fit(features, inside.astype(int))

  def rank(
    self, features: Float[np.ndarray, "b f"]
  ) -> Int[np.ndarray, "b classes"]:
    """Classes of each clip, the likeliest first."""
    return _rank(self._model, features)


def _candidates(seed: int) -> dict[str, Any]:
  """The classifiers that are tried, untrained, by name."""
  # A second to import, and whoever trains nothing should not pay for it.
  from sklearn.ensemble import ExtraTreesClassifier
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler
  from sklearn.svm import SVC

  models = {}
  for c in (1.0, 5.0):
    model = SVC(C=c, gamma="scale", decision_function_shape="ovr")
    models[f"SVM, RBF, C = {c:g}"] = make_pipeline(StandardScaler(), model)
  for c in (0.01, 0.1):
    model = LogisticRegression(C=c, max_iter=2000)
    name = f"logistic regression, C = {c:g}"
    models[name] = make_pipeline(StandardScaler(), model)
  trees = ExtraTreesClassifier(300, max_features=0.1, random_state=seed)
  return models | {"300 extra trees": trees}


def _validate(
  model: Any, both: np.ndarray, labels: np.ndarray, folds: int
) -> tuple[float, float]:
  """Cross-validated accuracy of each version, originals and codec's."""
  from sklearn.model_selection import StratifiedKFold

  right = np.zeros(2)
  # The codec's version of a recording goes where the recording goes.
  for train, test in StratifiedKFold(folds).split(both[0], labels):
    _train(model, both[:, train], labels[train])
    for i, version in enumerate(both):
      right[i] += (_rank(model, version[test])[:, 0] == labels[test]).sum()
  real, coded = (right / len(labels)).tolist()
  return real, coded


def _train(model: Any, both: np.ndarray, labels: np.ndarray) -> None:
  with warnings.catch_warnings():
    # The last digits of the weights do not matter.
    warnings.filterwarnings("ignore", message="lbfgs failed to converge")
    model.fit(np.concatenate(both), np.concatenate([labels, labels]))


def _rank(model: Any, features: np.ndarray) -> np.ndarray:
  """Classes of each clip, the likeliest first; of equals, the first."""
  return np.argsort(-_scores(model, features), axis=1, kind="stable")


def _scores(model: Any, features: np.ndarray) -> np.ndarray:
  """What classes of each clip are ranked by: more for likelier ones."""
  if hasattr(model, "decision_function"):
    scores = model.decision_function(features)
    if scores.ndim == 1:  # of two classes, how much more the second
      scores = np.stack([-scores, scores], axis=1)
    return scores
  return model.predict_proba(features)
