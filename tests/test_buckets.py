"""gs:// where it is not our own model, does not answer, or is one of words."""

import json
import logging
import shutil
import threading

import fsspec
import pytest
from etils.epath import backend
from fsspec.implementations.local import LocalFileSystem

from audiogen_jax import AudioGen
from audiogen_jax.core import checkpoint
from audiogen_jax.core.errors import InputError
from audiogen_jax.data import reading
from audiogen_jax.text import tokenizer
from audiogen_jax.train import configuration
from configs import nano_lm


def through(monkeypatch, system):
  """Sends gs:// there, as etils does to gcsfs where it is installed."""
  monkeypatch.setattr(
    backend.fsspec_backend, "_get_filesystem", lambda name: system
  )
  monkeypatch.setattr(backend, "tf_backend", backend.fsspec_backend)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
  """A folder that is the bucket gs://bucket."""

  class Bucket(LocalFileSystem):
    @classmethod
    def _strip_protocol(cls, path):
      return str(path).replace("gs://bucket", str(tmp_path / "bucket"))

  (tmp_path / "bucket").mkdir()
  through(monkeypatch, Bucket(skip_instance_cache=True))
  return tmp_path / "bucket"


@pytest.fixture
def unreachable(monkeypatch):
  """Buckets without a network: gcsfs tries again, and writes to its log."""
  given_up = threading.Event()

  class Nowhere(fsspec.AbstractFileSystem):
    def exists(self, path, **_):
      logging.getLogger("gcsfs").error("out of retries")
      given_up.wait(60)

  through(monkeypatch, Nowhere(skip_instance_cache=True))
  monkeypatch.setattr(checkpoint, "_PATIENCE_S", 0.2)
  yield
  given_up.set()
  log = logging.getLogger("gcsfs")
  log.removeFilter(checkpoint._nothing)


def training(**changes):
  config = nano_lm.get_config("tiny")
  config.codec = "nano"
  config.update_from_flattened_dict(changes)
  return configuration.parse(config)


def test_a_t5_is_not_read_from_a_bucket(bucket, tiny, refused, tmp_path):
  shutil.copytree(tiny / "t5", bucket / "t5")
  words = "t5 format, and only our own is read from a bucket; copy it to a disk"
  with pytest.raises(InputError, match=words):
    AudioGen.from_pretrained(tiny, text_encoder="gs://bucket/t5")
  with pytest.raises(InputError, match=words):
    training(**{"text.source": "gs://bucket/t5"})[1].opened()
  said = refused(
    *("generate", "rain", "--model", tiny, "-o", tmp_path / "a.wav"),
    *("--text-encoder", "gs://bucket/t5"),
  )
  assert words in said
  with pytest.raises(InputError, match="not a folder with a model"):
    AudioGen.from_pretrained(tiny, text_encoder="gs://bucket/none")


def test_a_bucket_that_does_not_answer(
  unreachable, tiny, refused, tmp_path, caplog
):
  words = r"cannot be reached \(TimeoutError: no answer within .* the network"
  for call in (
    lambda: AudioGen.from_pretrained(tiny, text_encoder="gs://bucket/t5"),
    lambda: training(**{"text.source": "gs://bucket/t5"})[1].opened(),
    lambda: reading.read("gs://bucket/data"),
  ):
    with pytest.raises(InputError, match=words):
      call()
  said = refused(
    *("generate", "rain", "--model", tiny, "-o", tmp_path / "a.wav"),
    *("--text-encoder", "gs://bucket/t5"),
  )
  assert "text encoder: gs://bucket/t5 cannot be reached" in said
  assert not caplog.records


@pytest.mark.parametrize("uri", ["s3://b/x", "hf://b/x", "file:///tmp"])
def test_other_uris(uri):
  with pytest.raises(InputError, match="only gs:// URIs are known"):
    checkpoint.path_of(uri)


def test_words_of_a_model_in_a_bucket(bucket, tiny, tmp_path):
  """The tokenizer of an export, which `transformers` reads from disks alone."""
  shutil.copytree(tiny / "t5", bucket / "tokenizer")
  want = tokenizer.load(tiny / "t5")
  words = tokenizer.load("gs://bucket/tokenizer", rows=want.vocabulary)
  assert words.ids("a dog barks") == want.ids("a dog barks")
  words.save(tmp_path)
  assert tokenizer.load(tmp_path).ids("rain") == want.ids("rain")
  (bucket / "bytes").mkdir()
  described = {"tokenizer_class": "ByT5Tokenizer"}
  (bucket / "bytes" / "tokenizer_config.json").write_text(json.dumps(described))
  words = tokenizer.load("gs://bucket/bytes")
  assert isinstance(words, tokenizer.ByteTokenizer)
