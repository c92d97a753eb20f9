"""The Fréchet distance: published values, one pass, small sets, bad ones."""

import json
import os
import pathlib
import tracemalloc

import numpy as np
import pytest
import scipy

from audiogen_jax.core.errors import InputError
from audiogen_jax.embedding import frechet

GOLDEN = pathlib.Path(__file__).parent / "golden"
METRICS = (
  pathlib.Path(os.environ.get("AUDIOGEN_PACKS", GOLDEN)) / "eval_metrics"
)
EXPECTED = (
  json.loads((METRICS / "expected.json").read_text())
  if METRICS.is_dir()
  else {}
)


@pytest.fixture(scope="module")
def inputs():
  with np.load(METRICS / "inputs.npz") as file:
    return dict(file)


def pair(inputs, case):
  generated = inputs[f"features/{case}/generated"]
  return generated, inputs.get(f"features/{case}/reference", generated)


@pytest.mark.filterwarnings("ignore:sets of")
@pytest.mark.parametrize("case", [k for k in EXPECTED if k.startswith("fd/")])
def test_parity_eval_metrics_frechet_distance(inputs, case):
  first, second = pair(inputs, case.removeprefix("fd/"))
  ours = frechet.distance(frechet.gather(first), frechet.gather(second))
  small = min(len(first), len(second)) <= first.shape[1]
  for program, value in EXPECTED[case].items():
    # Measured: 5e-8 and, of small sets, 2e-6, both google's in float32.
    rtol, atol = (1e-5 if small else 1e-6), 1e-9
    if "float16" in program:
      rtol = 3e-4  # measured 1.5e-4, what float16 costs
    np.testing.assert_allclose(ours, value, rtol, atol, err_msg=program)


@pytest.mark.skipif(not EXPECTED, reason="no pack eval_metrics")
def test_parity_eval_metrics_fad_at_infinity(inputs):
  want = EXPECTED["fad_inf"]
  reference = frechet.gather(inputs["features/full_rank/reference"])
  found = frechet.at_infinity(
    inputs["features/fad_inf/generated"],
    reference,
    np.random.RandomState(want["numpy_seed"]),
  )
  np.testing.assert_allclose(found.value, want["score"], rtol=1e-5)
  np.testing.assert_allclose(found.slope, want["slope"], rtol=1e-5)
  np.testing.assert_allclose(found.r2, want["r2"], rtol=1e-4)
  points = list(zip(found.sizes, found.distances, strict=True))
  np.testing.assert_allclose(points, want["points"], rtol=1e-6)


def random_sets(n, d, seed=0):
  """Embeddings far from zero whose values hang together."""
  numbers = np.random.default_rng(seed)
  mix = numbers.normal(size=(d, d))
  first = numbers.normal(size=(n, d)) @ mix + 30.0
  second = numbers.standard_gamma(2.0, size=(n, d)) @ mix + 31.0
  return first.astype(np.float32), second.astype(np.float32)


def exact(first, second):
  """By numpy's covariances and the eigenvalues of their product."""
  first, second = first.astype(np.float64), second.astype(np.float64)
  c1, c2 = np.cov(first.T), np.cov(second.T)
  step = first.mean(axis=0) - second.mean(axis=0)
  common = np.sqrt(np.linalg.eigvals(c1 @ c2).real).sum()
  return step @ step + np.trace(c1) + np.trace(c2) - 2 * common


def test_statistics_of_one_pass_are_the_exact_ones():
  sets = random_sets(10_000, 128)
  streamed = []
  for rows in sets:
    gatherer = frechet.Gatherer()
    for part in np.split(rows, [1, 2, 100, 128, 129, 5000]):
      gatherer.add(part)
    streamed.append(gatherer.statistics())
  # Measured 3e-13.
  np.testing.assert_allclose(
    frechet.distance(*streamed), exact(*sets), rtol=1e-9
  )


@pytest.mark.parametrize("sizes", [(3, 4), (3, 40), (40, 3), (40, 50)])
def test_merged_statistics_are_those_of_the_whole(sizes):
  rows = random_sets(sum(sizes), 8)[0]
  first, second = frechet.Gatherer(), frechet.Gatherer()
  first.add(rows[: sizes[0]])
  second.add(rows[sizes[0] :])
  first.merge(second)
  found = first.statistics()
  assert found.count == len(rows)
  np.testing.assert_allclose(found.mean, rows.astype(float).mean(0), 1e-12)
  np.testing.assert_allclose(
    found.covariance, np.cov(rows.astype(float).T), rtol=1e-9
  )


def test_many_rows_need_no_more_memory_than_few():
  rows = random_sets(50, 16)[0]
  gatherer = frechet.Gatherer()
  tracemalloc.start()
  peaks = []
  for repeats in (10, 500):
    tracemalloc.reset_peak()
    for _ in range(repeats):
      gatherer.add(rows)
    peaks.append(tracemalloc.get_traced_memory()[1])
  tracemalloc.stop()
  assert peaks[1] < peaks[0] + 10_000


@pytest.mark.parametrize("n", [2, 9, 15, 16, 17])
def test_small_sets_have_the_distance_of_their_rows(n):
  """Of as many rows as values and fewer, as of one more."""
  first, second = random_sets(n, 16)
  if n <= 16:
    with pytest.warns(UserWarning, match=rf"sets of {n} and {n} .* of 16"):
      ours = frechet.distance(frechet.gather(first), frechet.gather(second))
  else:
    ours = frechet.distance(frechet.gather(first), frechet.gather(second))
  a, b = (rows.astype(np.float64) for rows in (first, second))
  step = a.mean(0) - b.mean(0)
  a, b = ((rows - rows.mean(0)) / np.sqrt(n - 1) for rows in (a, b))
  common = scipy.linalg.svdvals(a @ b.T).sum()
  want = step @ step + (a**2).sum() + (b**2).sum() - 2 * common
  np.testing.assert_allclose(ours, want, rtol=1e-9)


def test_statistics_alone_give_the_same_distance(tmp_path):
  """Also of a set smaller than the dimension, whose covariance is singular."""
  first, second = random_sets(12, 16)
  path = tmp_path / "reference.npz"
  whole = frechet.gather(second)
  frechet.write(path, {"fad": whole}, {"protocol": "sfx", "clips": "12"})
  found, about = frechet.read(path)
  assert about == {"protocol": "sfx", "clips": "12"} and list(found) == ["fad"]
  stored = found["fad"]
  assert stored.count == 12 and len(stored.root) == 11
  with pytest.warns(UserWarning, match="sets of 12"):
    found = [
      frechet.distance(frechet.gather(first), s) for s in (whole, stored)
    ]
  np.testing.assert_allclose(*found, rtol=1e-9)


def test_the_distance_is_symmetric_and_zero_to_itself():
  first, second = (frechet.gather(rows) for rows in random_sets(300, 16))
  there, back = frechet.distance(first, second), frechet.distance(second, first)
  np.testing.assert_allclose(there, back, rtol=1e-12)
  assert abs(frechet.distance(first, first)) < 1e-9 * there


def test_bad_sets_are_refused():
  rows = random_sets(20, 4)[0]
  holed = rows.copy()
  holed[3, 1] = np.nan
  with pytest.raises(InputError, match="1 of 20 embeddings hold NaN"):
    frechet.gather(holed)
  with pytest.raises(InputError, match="there are 1; take"):
    frechet.gather(rows[:1])
  with pytest.raises(InputError, match="there are 0; take"):
    frechet.Gatherer().statistics()
  with pytest.raises(InputError, match="of 4 and of 3 values have no distance"):
    frechet.distance(frechet.gather(rows), frechet.gather(rows[:, :3]))
  gatherer = frechet.Gatherer()
  gatherer.add(rows)
  with pytest.raises(InputError, match="of 4 and of 3 values are no one set"):
    gatherer.add(rows[:, :3])
  with pytest.raises(InputError, match="are 20; take more clips"):
    frechet.at_infinity(rows, frechet.gather(rows), np.random.RandomState(0))


def test_bad_files_are_refused(tmp_path):
  path = tmp_path / "a.npz"
  path.write_bytes(b"PK\x03\x04 no archive")
  with pytest.raises(InputError, match=r"a\.npz is damaged"):
    frechet.read(path)
  path.write_text("no statistics")
  with pytest.raises(InputError, match="holds no statistics"):
    frechet.read(path)
  np.savez(path, **{"a/mean": np.zeros(3)})
  with pytest.raises(InputError, match="holds no statistics"):
    frechet.read(path)

  def stored(mean, covariance):
    fields = {"mean": mean, "covariance": covariance, "count": 9}
    np.savez(path, **{f"a/{name}": value for name, value in fields.items()})

  stored(np.zeros(3), np.eye(2))
  with pytest.raises(InputError, match="shape \\(2, 2\\) to a mean of 3"):
    frechet.read(path)
  stored(np.full(3, np.nan), np.eye(3))
  with pytest.raises(InputError, match="NaN"):
    frechet.read(path)
  np.savez(path, other=np.zeros(3))
  with pytest.raises(InputError, match="holds no statistics"):
    frechet.read(path)
