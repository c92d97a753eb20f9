"""The ground floor: configurations, placements, and what the rooms share."""

import dataclasses
import json
from typing import Literal

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from audiogen_jax.codec.encodec import EncodecConfig
from audiogen_jax.core import config, sharding, types
from audiogen_jax.core.errors import InputError
from audiogen_jax.core.sharding import Placement, make_mesh
from audiogen_jax.core.types import TokenSpec
from audiogen_jax.lm.model import LMConfig
from audiogen_jax.text.t5 import T5Config


@dataclasses.dataclass(frozen=True)
class Engine:
  cylinders: int
  litres: float = 1.6
  fuel: Literal["petrol", "diesel"] = "petrol"
  turbo: bool = False


@dataclasses.dataclass(frozen=True)
class Car:
  engine: Engine
  name: str = "unnamed"
  wheels: tuple[int, ...] = (1, 2, 3, 4)
  spare: Engine | None = None
  range_km: float | None = None
  doors: int = dataclasses.field(default_factory=lambda: 4)
  built: bool = dataclasses.field(default=True, init=False)


# Configurations


def test_build_nests_and_keeps_defaults():
  values = {"engine": {"cylinders": 6, "litres": 3}, "wheels": [1, 2, 3]}
  car = config.build(Car, values)
  assert car == Car(Engine(6, 3.0), wheels=(1, 2, 3))
  assert isinstance(car.engine.litres, float)  # an integer is a float too
  assert isinstance(car.wheels, tuple)
  assert car.engine.fuel == "petrol" and car.spare is None and car.doors == 4
  spare = config.build(Car, values | {"spare": {"cylinders": 2}}).spare
  assert spare == Engine(2)
  assert config.build(Car, values | {"range_km": 700}).range_km == 700.0
  assert config.build(Car, values | {"range_km": None}).range_km is None
  already = config.build(Car, {"engine": {"cylinders": 4}, "wheels": (7,)})
  assert already.wheels == (7,)


@pytest.mark.parametrize(
  "values,words",
  [
    (
      {"engine": {"cylinders": 4}, "whells": 3},
      "unknown configuration key 'whells'; valid: doors, engine, name,"
      " range_km, spare, wheels$",
    ),
    (
      {"engine": {"cylinders": 4, "fule": "diesel"}},
      "unknown configuration key 'engine.fule'; valid: cylinders, fuel,"
      " litres, turbo$",
    ),
    ({"engine": {"cylinders": 4}, "built": True}, "key 'built'; valid"),
    ({"name": "x"}, "configuration key 'engine' is missing"),
    ({"engine": {"litres": 2.0}}, "key 'engine.cylinders' is missing"),
    ({"engine": {"cylinders": "6"}}, "engine.cylinders = '6' must be of type"),
    ({"engine": {"cylinders": 6.0}}, "cylinders = 6.0 must be of type int"),
    ({"engine": {"cylinders": True}}, "cylinders = True must be of type int"),
    ({"engine": {"cylinders": None}}, "cylinders = None must be of type int"),
    ({"engine": {"cylinders": 4, "litres": "2"}}, "litres = '2' must be .*flo"),
    ({"engine": {"cylinders": 4, "litres": False}}, "litres = False must be"),
    ({"engine": {"cylinders": 4, "turbo": 1}}, "turbo = 1 must be of type boo"),
    (
      {"engine": {"cylinders": 4, "fuel": "coal"}},
      "engine.fuel = 'coal' is not one of 'petrol', 'diesel'",
    ),
    ({"engine": 4}, "engine = 4 must hold keys and values"),
    ({"engine": {"cylinders": 4}, "spare": 1}, "spare = 1 must hold keys"),
    ({"engine": {"cylinders": 4}, "wheels": 4}, "wheels = 4 must be a list"),
    ({"engine": {"cylinders": 4}, "wheels": "1234"}, "'1234' must be a list"),
    ({"engine": {"cylinders": 4}, "wheels": [1, "2"]}, "wheels = '2' must be"),
    ({"engine": {"cylinders": 4}, "name": 7}, "name = 7 must be of type str"),
  ],
)
def test_build_refuses(values, words):
  with pytest.raises(InputError, match=words):
    config.build(Car, values)


def test_messages_name_the_place_within_the_whole():
  with pytest.raises(InputError, match="key 'lm.transformer.widht'; valid: .*"):
    config.build(LMConfig, {"transformer": {"widht": 8}}, where="lm")
  with pytest.raises(InputError, match="lm.codebooks = 1.5 must be"):
    config.build(LMConfig, {"codebooks": 1.5}, where="lm")
  with pytest.raises(InputError, match="'lm.engine' is missing"):
    config.build(Car, {}, where="lm")


@pytest.mark.parametrize("cls", [LMConfig, T5Config, EncodecConfig])
def test_every_configuration_survives_json(cls):
  made = cls()
  text = json.dumps(config.as_dict(made))
  assert config.build(cls, json.loads(text)) == made
  assert hash(config.build(cls, json.loads(text))) == hash(made)


def test_round_trip_keeps_every_changed_value():
  car = Car(Engine(8, 4.2, "diesel", True), "x", (9,), Engine(1), 3.0, 5)
  values = {k: v for k, v in config.as_dict(car).items() if k != "built"}
  assert config.build(Car, json.loads(json.dumps(values))) == car


def test_build_takes_a_config_dict():
  values = ml_collections.ConfigDict()
  values.codebooks = 2
  values.transformer = ml_collections.ConfigDict({"width": 96, "layers": 2})
  values.pattern = {"kind": "delay", "delays": [0, 3]}
  values.size = ml_collections.FieldReference(512) * 2
  made = config.build(LMConfig, values)
  assert made.codebooks == 2 and made.size == 1024
  assert made.transformer.width == 96 and made.transformer.layers == 2
  assert made.pattern.delays == (0, 3)
  frozen = ml_collections.FrozenConfigDict(values)
  assert config.build(LMConfig, frozen) == made
  values.transformer.heds = 3
  with pytest.raises(InputError, match="'transformer.heds'; valid: .*heads"):
    config.build(LMConfig, values)


# Placement

RULES = {"batch": ("data", "fsdp"), "heads": "tensor", "ff": "tensor"}
TABLE = {
  r"layer_\d+/kernel": ("ff", "embed"),
  "embed": (None, "embed"),
  "bias": ("ff",),
}


def test_specs_follow_the_rules():
  placement = Placement.make(make_mesh(data=2, fsdp=2, tensor=2), RULES)
  spec = placement.spec(("batch", None, "heads", "embed"))
  assert spec == PartitionSpec(("data", "fsdp"), None, "tensor", None)
  assert placement.spec(()) == PartitionSpec()
  sharding_ = placement.sharding(None, "ff")
  assert sharding_.is_equivalent_to(
    NamedSharding(placement.mesh, PartitionSpec(None, "tensor")), 2
  )
  assert placement.ways("batch") == 4
  assert placement.ways("heads") == 2
  assert placement.ways("embed") == 1


def test_absent_mesh_axes_split_nothing():
  placement = Placement.make(make_mesh(data=4), RULES)
  spec = placement.spec(("batch", "heads", "ff"))
  assert spec == PartitionSpec("data", None, None)
  assert placement.ways("batch") == 4 and placement.ways("heads") == 1
  placement = Placement.make(make_mesh(model=8), RULES)
  assert placement.spec(("batch", "heads")) == PartitionSpec(None, None)
  assert placement.ways("batch") == 1
  off = Placement.make(make_mesh(data=4), {"batch": None})
  assert off.spec(("batch",)) == PartitionSpec(None)


def test_no_mesh_means_every_device_along_data():
  placement = Placement.make(None)
  assert dict(placement.mesh.shape) == {"data": 8}
  assert placement.ways("batch") == 8


def test_placements_are_static_arguments():
  one = Placement.make(make_mesh(data=8), RULES)
  same = Placement.make(make_mesh(data=8), dict(reversed(RULES.items())))
  assert one == same and hash(one) == hash(same)
  assert one != Placement.make(make_mesh(data=4, tensor=2), RULES)
  assert one != Placement.make(make_mesh(data=8))


def test_too_few_devices():
  words = "mesh data=8 x tensor=2 needs 16 devices; 8 are here"
  with pytest.raises(InputError, match=words):
    make_mesh(data=8, tensor=2)
  assert make_mesh(data=2, tensor=2).devices.shape == (2, 2)


def test_meshes_with_explicit_axes_are_accepted():
  explicit = jax.make_mesh(
    (4, 2), ("data", "tensor"), axis_types=(AxisType.Explicit,) * 2
  )
  placement = Placement.make(explicit)
  assert placement == Placement.make(make_mesh(data=4, tensor=2))
  x = jax.device_put(np.ones((8, 4)), placement.sharding("batch", "heads"))

  @jax.jit
  def product(x):
    with placement.active():
      return sharding.constrain(x @ x.T, "batch", None)

  split = placement.sharding("batch", None)
  assert product(x).sharding.is_equivalent_to(split, 2)


def test_constrain():
  x = jnp.ones((8, 3))
  assert sharding.constrain(x, "batch", None) is x  # no placement, no opinion
  placement = Placement.make(make_mesh(data=8))

  @jax.jit
  def spread(x):
    with placement.active():
      return sharding.constrain(x, "batch", None)

  assert len(spread(x).sharding.device_set) == 8
  assert sharding.constrain(x, "batch", None) is x  # and none left behind
  with pytest.raises(RuntimeError), placement.active():
    raise RuntimeError
  assert sharding.constrain(x, "batch", None) is x


def test_shardings_of_a_tree():
  placement = Placement.make(make_mesh(data=4, tensor=2), RULES)
  tree = {
    "layer_0": {"kernel": jax.ShapeDtypeStruct((4, 6), jnp.float32)},
    "embed": np.zeros((5, 3), np.float32),
    "bias": jnp.zeros((2,)),
  }
  made = sharding.shardings(tree, TABLE, placement)
  assert jax.tree.structure(made) == jax.tree.structure(tree)
  assert made["layer_0"]["kernel"].spec == PartitionSpec("tensor", None)
  assert made["embed"].spec == PartitionSpec(None, None)
  assert made["bias"].spec == PartitionSpec("tensor")


def test_one_mesh_axis_splits_one_axis_of_a_parameter():
  placement = Placement.make(make_mesh(data=4, tensor=2), RULES)
  tree, table = {"kernel": np.zeros((4, 6))}, {"kernel": ("ff", "heads")}
  with pytest.raises(
    InputError, match="parameter kernel with axes .*'ff'.*own"
  ):
    sharding.shardings(tree, table, placement)


def test_a_parameter_needs_exactly_one_rule():
  placement = Placement.make(make_mesh(data=8))
  leaf = np.zeros((4, 4), np.float32)
  tree = {"layer_12": {"kernel": leaf}, "extra": {"scale": leaf[0]}}
  with pytest.raises(KeyError, match="'extra/scale' is matched by 0 rules"):
    sharding.shardings(tree, TABLE, placement)
  twice = TABLE | {"layer_12/.*": (None, None)}
  with pytest.raises(KeyError, match="'layer_12/kernel' is matched by 2 rules"):
    sharding.shardings({"layer_12": {"kernel": leaf}}, twice, placement)
  with pytest.raises(KeyError, match=r"'bias' has 2 axes, its rule names"):
    sharding.shardings({"bias": leaf}, TABLE, placement)
  # A rule has to match the whole path.
  with pytest.raises(KeyError, match="'layer_1/kernel/x' is matched by 0"):
    sharding.axes_of("layer_1/kernel/x", 2, TABLE)


def test_a_mesh_must_divide_every_parameter():
  placement = Placement.make(make_mesh(data=4, tensor=2), RULES)
  words = (
    r"parameter bias of shape \(5,\) cannot be split over the mesh"
    r" {'data': 4, 'tensor': 2} as .*'tensor'.*; choose mesh"
  )
  with pytest.raises(InputError, match=words):
    sharding.shardings({"bias": np.zeros(5)}, TABLE, placement)


def test_path_name():
  tree = {"a": [types.Cond(np.zeros((1, 1, 1)), np.zeros((1, 1), bool))]}
  (path, _), *_ = jax.tree_util.tree_leaves_with_path(tree)
  assert sharding.path_name(path).startswith("a/")
  assert sharding.path_name(path).endswith("/states")


# What the rooms share


def test_bucket():
  sizes = 0, 1, 2, 3, 4, 5, 63, 64, 65, 1000
  powers = 1, 1, 2, 4, 4, 8, 64, 64, 128, 1024
  assert tuple(map(types.bucket, sizes)) == powers
  assert [types.bucket(n, least=64) for n in (1, 64, 65)] == [64, 64, 128]
  for n in range(1, 300):
    assert types.bucket(n) // 2 < n <= types.bucket(n)
  fine = [types.bucket(n, least=64, parts=4) for n in range(1, 257)]
  assert sorted({*fine}) == [64, 80, 96, 112, 128, 160, 192, 224, 256]
  assert all(n <= size < max(1.25 * n, 65) for n, size in enumerate(fine, 1))


def test_frames_are_whole_and_not_one_short():
  tokens = TokenSpec(codebooks=4, size=2048, frame_rate_hz=50)
  assert 2.3 * 50 < 115  # what makes a plain floor lose a frame
  assert tokens.frames(2.3) == 115
  assert [tokens.frames(s) for s in (0.0, 0.02, 1.0, 10.0)] == [0, 1, 50, 500]
  assert tokens.frames(0.999) == 49 and tokens.frames(0.0399) == 1
  for frames in range(2000):  # durations written with two digits
    assert tokens.frames(round(frames * 0.02, 2)) == frames


def test_dtypes():
  assert types.resolve_dtype("float32") == jnp.float32
  assert types.resolve_dtype("bfloat16") == jnp.bfloat16
  assert types.resolve_dtype(None) == jnp.float32  # tests run on the CPU
  words = "dtype 'float16' is not one of float32, bfloat16"
  with pytest.raises(InputError, match=words):
    types.resolve_dtype("float16")
  assert types.precision(jnp.dtype(jnp.float32)) == "highest"
  assert types.precision(jnp.dtype(jnp.bfloat16)) == "default"


def test_input_errors_are_value_errors():
  assert issubclass(InputError, ValueError)
