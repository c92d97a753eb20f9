"""KL, inception score, KID, agreement, bootstrap: published and by hand."""

import json
import os
import pathlib

import numpy as np
import pytest

from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import agreement
from audiogen_jax.evaluate import bootstrap, divergence
from audiogen_jax.evaluate import kid as kernel

GOLDEN = pathlib.Path(__file__).parent / "golden"
METRICS = (
  pathlib.Path(os.environ.get("AUDIOGEN_PACKS", GOLDEN)) / "eval_metrics"
)
RTOL = 1e-5  # measured 2e-8
needs_pack = pytest.mark.skipif(
  not METRICS.is_dir(), reason="no pack eval_metrics"
)


@pytest.fixture(scope="module")
def pack():
  expected = json.loads((METRICS / "expected.json").read_text())
  with np.load(METRICS / "inputs.npz") as file:
    return dict(file), expected


@needs_pack
def test_parity_eval_metrics_kl(pack):
  inputs, expected = pack
  reference, generated = inputs["logits/reference"], inputs["logits/generated"]
  forth = divergence.kl(reference, generated).mean()
  back = divergence.kl(generated, reference).mean()
  sigmoid = divergence.kl(reference, generated, "sigmoid").mean()
  ours = {
    "audiocraft_kld": forth,
    "audiocraft_kld_pq": forth,
    "audiocraft_kld_qp": back,
    "audiocraft_kld_both": forth + back,
    "audioldm_eval_softmax": forth,
    "audioldm_eval_softmax_files_in_another_order": forth,
    "audioldm_eval_sigmoid": sigmoid,
    "stable_audio_metrics": back,
  }
  for name, value in expected["kl"].items():
    np.testing.assert_allclose(ours[name], value, RTOL, err_msg=name)


@needs_pack
def test_parity_eval_metrics_inception_score(pack):
  inputs, expected = pack
  for key, want in expected["inception_score"].items():
    splits = int(key.removeprefix("splits_"))
    ours = divergence.inception_score(inputs["logits/generated"], splits)
    np.testing.assert_allclose(ours, tuple(want.values()), RTOL, 1e-12)


@needs_pack
def test_parity_eval_metrics_kid(pack):
  inputs, expected = pack
  for key, want in expected["kid"].items():
    ours = kernel.kid(
      inputs["features/full_rank/generated"],
      inputs["features/full_rank/reference"],
      subsets=20,  # so many the pack was made with
      size=int(key.removeprefix("subset_")),
    )
    np.testing.assert_allclose(ours, tuple(want.values()), RTOL)


@needs_pack
def test_parity_eval_metrics_clap(pack):
  inputs, expected = pack
  want = expected["clap"]
  ours = agreement.cosines(inputs["clap/audio"], inputs["clap/text"])
  # Measured 4e-8.
  np.testing.assert_allclose(ours, want["cosines"], RTOL, 1e-7)
  np.testing.assert_allclose(ours.mean(), want["mean_cosine"], RTOL)


def test_kl_by_hand():
  p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.9, 0.1, 1e-30]])
  with np.errstate(divide="ignore"):
    ours = divergence.kl(np.log(p), np.log(q))
  want = 0.5 * np.log(0.5 / (0.9 + 1e-6)) + 0.5 * np.log(0.5 / (0.1 + 1e-6))
  np.testing.assert_allclose(ours, [want], rtol=1e-12)


def test_kl_of_a_set_to_itself_is_what_the_epsilon_leaves():
  logits = np.random.default_rng(0).normal(size=(20, 527)).astype(np.float32)
  for squash in ("softmax", "sigmoid"):
    ours = divergence.kl(logits, logits, squash)
    assert (ours < 0).all() and (ours > -1e-3).all()


def test_an_inception_score_counts_the_classes_that_are_surely_heard():
  logits = 100 * np.eye(4)[np.arange(40) % 4]
  assert divergence.inception_score(logits, 1)[0] == pytest.approx(4.0)
  assert divergence.inception_score(0 * logits, 1)[0] == pytest.approx(1.0)


def test_a_kernel_distance_is_about_zero_between_draws_of_one_kind():
  numbers = np.random.default_rng(0)
  rows = numbers.normal(size=(400, 8))
  near, _ = kernel.kid(rows[:200], rows[200:], subsets=1)
  far, _ = kernel.kid(rows[:200], rows[200:] + 1, subsets=1)
  assert abs(near) < 0.05 * far


def test_whole_groups_leave_the_last_one_out():
  values = np.arange(45.0)
  assert len(agreement.in_whole_groups(values, 20)) == 40
  with pytest.raises(InputError, match="groups of 20 pairs, there are 19"):
    agreement.in_whole_groups(values[:19], 20)


def test_what_is_of_pairs_needs_pairs():
  rows = np.zeros((3, 2))
  with pytest.raises(InputError, match=r"shapes \(3, 2\) and \(2, 2\)"):
    divergence.kl(rows, rows[:2])
  with pytest.raises(InputError, match=r"shapes \(3, 2\) and \(2, 2\)"):
    agreement.cosines(rows, rows[:2])
  with pytest.raises(InputError, match="10 splits .* are 3"):
    divergence.inception_score(rows)
  with pytest.raises(InputError, match="there are 1 and 3"):
    kernel.kid(rows[:1], rows)


def test_an_interval_holds_the_mean_of_the_kind_as_often_as_it_says():
  numbers = np.random.default_rng(0)
  inside = 0
  for _ in range(100):
    values = numbers.exponential(size=60)
    low, high = bootstrap.interval(
      float(values.mean()),
      lambda draws, v=values: float(draws.choice(v, len(v)).mean()),
    )
    inside += low < 1.0 < high
  assert 86 <= inside <= 99


def test_an_interval_lies_around_the_value_whatever_the_bias():
  def different(draws):
    return float(len(set(draws.integers(50, size=50).tolist())))

  seen = []
  interval = bootstrap.interval(
    50.0, different, progress=lambda *numbers: seen.append(numbers)
  )
  assert interval[0] < 50 < interval[1]
  assert interval == bootstrap.interval(50.0, different)
  assert seen[-1] == (bootstrap.REPLICATES, bootstrap.REPLICATES)
