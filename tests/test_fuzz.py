"""Random input: a run, or an error that says what is wrong with it.

Never a traceback, never a hang, and never an altered checkpoint. The examples
are the same in every run of the tests. FUZZ=N makes N times as many, at random:

  FUZZ=20 python -m pytest tests/test_fuzz.py --timeout=3600
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import tempfile
from unittest import mock

import jax
import ml_collections
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from acme_stac import checkpointing
from acme_stac.config import CHOICES
from acme_stac.presets import AGENTS, DOMAINS
from programs.launch import cluster as cluster_lib
from programs.launch import flags as run_flags
from programs.launch import session
from programs.run import experiment as experiment_lib
from programs.run import resume, validation
from programs.run.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
_FACTOR = int(os.environ.get("FUZZ", "0"))


def bounded(examples):
  """Returns settings of a property; an example of over a minute is a hang."""
  return settings(
    max_examples=examples * max(_FACTOR, 1),
    derandomize=not _FACTOR,
    database=None,
    deadline=60_000,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
  )


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
  """Relative paths lead nowhere else, and so does the home directory."""
  place = tmp_path_factory.mktemp("fuzz")
  (place / "configs").symlink_to(ROOT / "configs")
  before = os.getcwd()
  os.chdir(place)
  with mock.patch.dict(os.environ, HOME=str(place)):
    yield place
  os.chdir(before)


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch):
  """Of an environment that works, a few steps are as good as a second."""
  check = experiment_lib.environments.check
  monkeypatch.setattr(
    experiment_lib.environments, "check",
    lambda environment: check(environment, max_steps=20),
  )


def readable(error):
  """Checks the one error that a user may see."""
  message = str(error)
  assert len(message.strip()) > 10, repr(message)
  assert "Traceback" not in message


NASTY = (
  "", " ", "0", "-1", "2", "nan", "inf", "1e400", "9" * 400, "0x10", "1_000",
  "True", "none", "(", "()", "(1,)", "(1,2)", "[1, 'a']", "{'a': 1}", "'", '"',
  "\\", "\n", "ä", "lambda: 0", "a b", "=", "--", "*", "%s", "~",
  "(('a',),)", "b'x'", "1j", "...", "1e3", "100000000000",
)
TEXTS = st.one_of(
  st.sampled_from(NASTY),
  st.integers().map(str),
  st.floats().map(str),
  st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    max_size=20,
  ),
)
NUMBERS = st.one_of(
  st.integers(-3, 40),
  st.sampled_from([2**31 - 1, 2**31, 10**9, 10**15, -1e39]),
  st.floats(0, 1),
  st.floats(),
)
PLAIN = st.one_of(
  NUMBERS, st.booleans(), st.none(), st.sampled_from(NASTY),
)
ANYTHING = st.one_of(
  PLAIN,
  st.lists(PLAIN, max_size=3),
  st.lists(st.integers(1, 64), max_size=25).map(tuple),
)


FAMILIES = {
  "catch": "configs/small.py:catch",
  "cartpole": "configs/small.py:gymnasium:CartPole-v1",
  "lander": "configs/small.py:gymnasium:MountainCarContinuous-v0",
  "atari": "configs/atari.py:pong",
  "rwrl": "configs/rwrl.py:cartpole/swingup/easy",
}


def fields_of(config, prefix=""):
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from fields_of(value, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}"


def load_config(family):
  path, _, argument = FAMILIES[family].partition(":")
  module = __import__(path[:-3].replace("/", "."), fromlist=["get_config"])
  return module.get_config(argument)


FIELDS = {family: sorted(fields_of(load_config(family))) for family in FAMILIES}
# Gymnasium takes options that the file has no field for.
for gymnasium in ("cartpole", "lander"):
  FIELDS[gymnasium] += [
    f"environment_options.{name}"
    for name in ("max_episode_steps", "render_mode", "nosuch")
  ]
# Values that may well be right, by the kind of a field.
LIKELY = {
  int: st.one_of(st.integers(1, 48), st.sampled_from([0, 1000, 10**6])),
  float: st.floats(0, 1.5),
  bool: st.booleans(),
  tuple: st.sampled_from([
    (), (1,), (16, 16), ("discount",), ("slider_pos",), ["discount"], (0,),
    ("discount", "lambda_"),
  ]),
  str: st.sampled_from(sorted({
    *AGENTS, *DOMAINS, *[name for known in CHOICES.values() for name in known],
    "machado", "papers", "pole_length", "random_walk", "uniform", "none", "rk4",
    *[path.partition(":")[2] for path in FAMILIES.values()],
  })),
}


def likely(family, name):
  """Returns a strategy of values of the kind that a field has."""
  config = load_config(family)
  *path, last = name.split(".")
  for part in path:
    config = config[part]
  if last not in config:
    return PLAIN
  if last in CHOICES:
    return st.sampled_from(CHOICES[last])
  if last == "agent":
    return st.sampled_from(sorted(AGENTS))
  return LIKELY.get(config.get_type(last), st.none())


FLAGS = (
  "num_actors", "launch", "cluster", "restart", "terminal", "nosuchflag",
  "config.nosuch", "config.stac", "config.", "config.stac.nosuch",
  "config.environment_options.nosuch", "",
)
@st.composite
def command_lines(draw):
  family = draw(st.sampled_from(sorted(FAMILIES)))
  workdir = draw(st.sampled_from(["run", "file", "/proc/none", "a" * 300]))
  argv = [f"--config={FAMILIES[family]}", f"--workdir={workdir}"]
  for _ in range(draw(st.integers(1, 2))):
    value = draw(TEXTS)
    if draw(st.integers(0, 3)):
      field = draw(st.sampled_from(FIELDS[family]))
      name = f"config.{field}"
      if draw(st.booleans()):
        value = str(draw(likely(family, field)))
    else:
      name = draw(st.sampled_from(FLAGS))
    dashes = draw(st.sampled_from(["--", "--", "--", "-", ""]))
    form = draw(st.sampled_from(["=", "=", "=", " ", "none"]))
    if form == "=":
      argv.append(f"{dashes}{name}={value}")
    else:
      argv += [f"{dashes}{name}"] + [value] * (form == " ")
  return argv


def describe(argv):
  """Runs the part of the command that precedes the start of processes."""
  with contextlib.redirect_stdout(io.StringIO()):
    try:
      session.describe(run_flags.parse(argv))
    except UserError as error:
      readable(error)
    except SystemExit as ended:
      assert ended.code == 0


@bounded(40)
@given(argv=command_lines())
@example(argv=["--workdir=run", "--config.stac.batchsize=4"])
@example(argv=["--workdir=run", "--config.agent="])
@example(argv=["--workdir=run", "--num_actors=1000000000"])
def test_command_lines(folder, argv):
  (folder / "file").write_text("")
  describe(argv)


ODD_FILES = {
  "raises.py": (
    "import builtins\n"
    "def get_config(name='ValueError'):\n"
    "  raise getattr(builtins, name)('because of this')\n"
  ),
  "syntax.py": "def get_config(:",
  "none.py": "def get_config(): pass",
  "dict.py": "def get_config(): return {'agent': 'stac'}",
  "strange.py": (
    "import ml_collections\n"
    "def get_config(name=''):\n"
    "  return ml_collections.ConfigDict({'agent': 'stac', 'stac': 3})\n"
  ),
  "missing.py": "import no_such_module",
}


@pytest.mark.parametrize("config", [
  *ODD_FILES, "raises.py:KeyError", "raises.py:TypeError", "configs",
  "configs/nosuch.py", "configs/small.py:", "configs/small.py:catch:x",
  "configs/atari.py:nosuch", "configs/control.py:cartpole",
  "configs/rwrl.py:a/b/c", "", ":catch", "configs/small.py:\n",
])
def test_configuration_files(folder, config):
  for name, text in ODD_FILES.items():
    (folder / name).write_text(text)
  describe(["--workdir=run", f"--config={config}"])


@st.composite
def configurations(draw):
  family = draw(st.sampled_from(sorted(FAMILIES)))
  names = draw(st.lists(
    st.sampled_from(FIELDS[family]), min_size=1, max_size=3, unique=True
  ))
  changes = {
    name: draw(likely(family, name) if draw(st.integers(0, 2)) else ANYTHING)
    for name in names
  }
  return family, changes


def change(config, name, value):
  """Sets a field, whatever its type is."""
  *path, last = name.split(".")
  for part in path:
    config = config[part]
  with config.unlocked():
    # So that it has no type yet.
    if last in config:
      del config[last]
    config[last] = value


def make(family, changes, workdir):
  config = load_config(family)
  # Small, so that what works is quick.
  for name, value in {
    "stac.torso_sizes": (8,), "stac.head_sizes": (8,), "stac.torso": "mlp",
    **changes,
  }.items():
    change(config, name, value)
  try:
    experiment = validation.make_experiment(config, 1, str(workdir))
    resume.prepare_workdir(experiment)
  except UserError as error:
    readable(error)


@bounded(40)
@given(configuration=configurations())
@example(configuration=("catch", {"seed": 10**30}))
@example(configuration=("catch", {"patience_seconds": "long"}))
@example(configuration=("catch", {"evaluation": 3}))
@example(configuration=("catch", {"stac.num_heads": 10**9}))
@example(configuration=("catch", {"stac.batch_size": 10**12}))
@example(configuration=("catch", {"stac.learning_rate": float("nan")}))
@example(configuration=("atari", {"environment_options.num_threads": 10**6}))
@example(configuration=("rwrl", {"environment_options.perturbation_max": 1e30}))
def test_values_of_a_configuration(configuration):
  with tempfile.TemporaryDirectory() as workdir:
    make(*configuration, workdir)


VALID = {
  "cluster": {"workerpool0": ["a:7070"], "workerpool1": ["b", "c"]},
  "task": {"type": "workerpool1", "index": 0},
}
# A right specification with one mistake in it.
HOSTS = st.one_of(
  st.sampled_from(["a", "b:7070", "10.0.0.1", "a:", ":1", "a:0", "a:65536"]),
  PLAIN,
)
NEARLY = st.builds(
  lambda task, name, value, pool, hosts: {
    "cluster": {**VALID["cluster"], pool: hosts},
    "task": {**VALID["task"], **task, **({name: value} if name else {})},
  },
  st.sampled_from([{}, {"index": 1}, {"type": "workerpool0"}, {"index": "0"}]),
  st.sampled_from([None, "type", "index", "more"]),
  PLAIN,
  st.sampled_from(["workerpool0", "workerpool1", "workerpool2", "chief"]),
  st.one_of(st.just(["b", "c"]), st.lists(HOSTS, max_size=3), PLAIN),
)


@bounded(60)
@given(
  content=st.one_of(
    st.text(max_size=50),
    NEARLY.map(json.dumps),
    NEARLY.map(lambda spec: yaml.safe_dump(spec, allow_unicode=True)),
  ),
  host=st.one_of(st.none(), st.sampled_from("abc")),
)
def test_cluster_files(content, host):
  with tempfile.TemporaryDirectory() as place:
    path = pathlib.Path(place) / "cluster.yaml"
    path.write_text(content, errors="replace")
    try:
      cluster = cluster_lib.read(str(path), host, 2)
    except UserError as error:
      readable(error)
      return
  assert cluster.describe(2) and cluster.host
  assert len(cluster.actors) in (0, 2)


def state_of(step):
  return {
    "params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3) * step,
               "b": np.ones(2, np.float32)},
    "empty": np.zeros((0, 2), np.float32),
    "flag": np.array([True, False]),
    "step": np.array(step, np.int32),
  }


def metadata_of(step):
  return {"number": step, "training_seconds": 1.5, "sizes": [1, 2], "a": None}


TEMPLATE = jax.eval_shape(lambda: state_of(1))


def check_load(directory, possible):
  """Loads; what comes back is what was saved at one of the `possible` steps."""
  try:
    loaded = checkpointing.load(directory, TEMPLATE)
  except checkpointing.CheckpointError as error:
    readable(error)
    return None
  assert loaded is not None
  state, metadata = loaded
  step = int(state["step"])
  assert step in possible
  assert metadata == metadata_of(step)
  jax.tree_util.tree_map(np.testing.assert_array_equal, state, state_of(step))
  jax.tree_util.tree_map(
    lambda x, y: np.testing.assert_equal(x.dtype, y.dtype),
    state, state_of(step),
  )
  return step


@functools.cache
def content_of(step):
  with tempfile.TemporaryDirectory() as place:
    return checkpointing.save(
      place, step, state_of(step), metadata_of(step)
    ).read_bytes()


def saved(directory, *steps):
  """Puts checkpoints there; returns the newest one's path."""
  for step in steps:
    path = pathlib.Path(directory) / f"checkpoint_{step:09d}.npz"
    path.write_bytes(content_of(step))
  return path


EDITS = st.lists(
  st.tuples(
    st.sampled_from(["flip", "insert", "remove", "zero", "truncate", "copy"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
    st.binary(min_size=1, max_size=8),
  ),
  min_size=1,
  max_size=3,
)


def edit(content, edits):
  data = bytearray(content)
  for kind, where, number, new in edits:
    at = int(where * len(data))
    if not data:
      data += new
    elif kind == "flip":
      data[at] ^= 1 << number
    elif kind == "insert":
      data[at:at] = new
    elif kind == "remove":
      del data[at : at + 1 + number]
    elif kind == "zero":
      data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "truncate":
      del data[at:]
    else:
      data[at : at + 64] = data[:64]
  return bytes(data)


@bounded(100)
@given(content=st.one_of(
  EDITS.map(lambda edits: edit(content_of(2), edits)),
  st.binary(max_size=300),
  st.binary(max_size=50).map(lambda tail: b"PK\x03\x04" + tail),
))
def test_damaged_and_foreign_checkpoints(content):
  with tempfile.TemporaryDirectory() as place:
    newest = saved(place, 1, 2)
    newest.write_bytes(content)
    assert check_load(place, {1, 2}) is not None
    (pathlib.Path(place) / "checkpoint_000000001.npz").unlink()
    check_load(place, {2})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_checkpoints(tmp_path):
  newest = saved(tmp_path, 1, 2)
  newest.chmod(0)
  assert check_load(tmp_path, {1}) == 1
  tmp_path.chmod(0)
  try:
    assert check_load(tmp_path, set()) is None
  finally:
    tmp_path.chmod(0o700)


def test_a_damaged_checkpoint_of_a_later_step_does_not_push_out_others(
  tmp_path
):
  newest = saved(tmp_path, 1, 9)
  newest.write_bytes(b"")
  checkpointing.save(tmp_path, 2, state_of(2), metadata_of(2), keep=1)
  assert check_load(tmp_path, {2}) == 2


@pytest.fixture(scope="module")
def a_run():
  with tempfile.TemporaryDirectory() as place:
    config = load_config("catch")
    config.stac.torso_sizes = config.stac.head_sizes = (4,)
    experiment = validation.make_experiment(config, 1, place)
    resume.prepare_workdir(experiment)
    yield experiment


@bounded(30)
@given(content=st.one_of(
  st.text(max_size=30),
  PLAIN.map(json.dumps),
  st.tuples(st.sampled_from(
    ["agent", "environment", "environment_spec", "config", "seed"]
  ), PLAIN),
))
@example(content="[]")
def test_config_json(a_run, content):
  path = a_run.workdir / "config.json"
  if isinstance(content, tuple):
    name, value = content
    content = json.dumps({**a_run.to_json(), name: value})
  path.write_text(content, errors="replace")
  try:
    resume.prepare_workdir(a_run)
  except UserError as error:
    readable(error)
