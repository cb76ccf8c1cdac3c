"""Whatever a user gives: an error that says what is wrong, or a run.

Never a traceback, never a hang, and never an altered checkpoint. The examples
are the same at every run. FUZZ=N makes N times as many, at random:

  FUZZ=20 python -m pytest tests/test_fuzz.py --timeout=3600
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import tempfile
import zipfile
from unittest import mock

import hypothesis
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
from programs import train
from programs.launch import cluster as cluster_lib
from programs.run import experiment as experiment_lib
from programs.run import flags as run_flags
from programs.run import resume, validation
from programs.run.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
_FACTOR = int(os.environ.get("FUZZ", "0"))


def bounded(examples, seconds=60):
  """Returns settings of a property; a hang is an example that takes longer."""
  return settings(
    max_examples=examples * max(_FACTOR, 1),
    derandomize=not _FACTOR,
    database=None,
    deadline=1000 * seconds,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
  )


def event(what):
  """Counts for --hypothesis-show-statistics."""
  if hypothesis.currently_in_test_context():
    hypothesis.event(what)


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
  event("refused")


# What goes wrong first: numbers, texts, nests, and what looks like code.
NASTY = (
  "", " ", "0", "-1", "1", "2", "nan", "inf", "-inf", "1e400", "1e308",
  "1e-400", "1" * 30, "9" * 400, "9" * 5000, "0x10", "1_000", "True", "none",
  "None", "(", ")", "()", "(1,)", "(1,2)", "[]", "[1, 'a']", "{}", "{'a': 1}",
  "'", '"', "'''", "\\", "\n", "\t", "ä", "٣", "𝟙", "\udcff", "lambda: 0",
  "__import__", "1;2", "a b", "=", "--", "-", "*", "%s", "{0}", "~", "$HOME",
  "\x7f", "\u202e", "(" * 300, "(1," * 50, "(('a',),)", "b'x'", "1j", "...",
  "1e3", "100000000000",
)
TEXTS = st.one_of(
  st.sampled_from(NASTY),
  st.integers().map(str),
  st.floats().map(str),
  st.text(st.characters(exclude_characters="\0"), max_size=20),
  st.tuples(st.integers(), st.text(max_size=3)).map(repr),
)
NUMBERS = st.one_of(
  st.integers(-3, 40),
  st.integers(),
  st.sampled_from([2**31 - 1, 2**31, 2**63, 10**9, 10**15, 10**400, -1e39]),
  st.floats(0, 1),
  st.floats(),
)
PLAIN = st.one_of(
  NUMBERS, NUMBERS, st.booleans(), st.none(), st.sampled_from(NASTY),
  st.text(max_size=5),
)
ANYTHING = st.one_of(
  PLAIN,
  PLAIN,
  st.lists(PLAIN, max_size=3),
  st.lists(PLAIN, max_size=3).map(tuple),
  st.lists(st.integers(1, 64), max_size=25).map(tuple),
  st.dictionaries(st.text(max_size=3), PLAIN, max_size=2),
  st.binary(max_size=3),
  st.sampled_from([
    np.float32(0.5), np.int64(3), np.zeros(2), np.array(1.0), object(), 1j, int,
    {1, 2}, pathlib.Path("x"), ml_collections.ConfigDict({"a": 1}),
  ]),
)


# Command lines.


FAMILIES = {
  "catch": "configs/small.py:catch",
  "cartpole": "configs/small.py:gymnasium:CartPole-v1",
  "lander": "configs/small.py:gymnasium:MountainCarContinuous-v0",
  "atari": "configs/atari.py:pong",
  "control": "configs/control.py:cartpole/swingup",
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
# What takes any option by name has none among its fields.
for gymnasium in ("cartpole", "lander"):
  FIELDS[gymnasium] += [
    f"environment_options.{name}"
    for name in (
      "max_episode_steps", "render_mode", "num_envs", "sutton_barto_reward",
      "goal_velocity", "vector_kwargs", "wrappers", "nosuch", "seed", "level",
    )
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
  "num_actors", "threads_per_actor", "launch", "cluster", "host", "restart",
  "isolate_network", "noisolate_network", "terminal", "flagfile", "undefok",
  "help", "nosuchflag", "config.nosuch", "config.stac", "config.evaluation",
  "config.", "config.stac.nosuch", "config.environment_options.nosuch", "",
)
CONFIGS = st.one_of(
  st.sampled_from(sorted(FAMILIES.values())),
  st.sampled_from([
    "configs/small.py", "configs/small.py:", "configs/small.py:atari:pong",
    "configs/small.py:catch:x", "configs/atari.py:nosuch", "configs", "",
    "configs/nosuch.py", ":", ":catch", "configs/__init__.py", "pipe", "odd.py",
    "configs/control.py:cartpole", "configs/rwrl.py:a/b/c", "raises.py",
    "syntax.py", "none.py", "dict.py", "strange.py", "binary.py", "/dev/null",
    "missing.py", "raises.py:KeyError", "raises.py:RecursionError",
    "raises.py:MemoryError", "raises.py:ZeroDivisionError",
    "raises.py:AssertionError", "raises.py:UnicodeDecodeError",
    "raises.py:TypeError", "raises.py:OSError",
  ]),
  st.tuples(st.sampled_from(sorted(set(
    path.partition(":")[0] for path in FAMILIES.values()
  ))), TEXTS).map(":".join),
  TEXTS.filter(lambda text: not text.startswith(("/", "~"))),
)
WORKDIRS = st.one_of(
  st.sampled_from([
    "run", "file", "file/run", "~nosuchuser/run", "~/run", "/proc/none", "",
    "a" * 300, "b/" * 30 + "c", "\udcff", "nul\0", "loop", "damaged",
  ]),
  st.text(max_size=10).filter(
    lambda text: not text.startswith(("/", "~")) and ".." not in text
  ),
)


@pytest.fixture(scope="module")
def odd_files(folder):
  """Configuration files and work directories that go wrong."""
  (folder / "file").write_text("")
  (folder / "loop").symlink_to("loop")
  os.mkfifo(folder / "pipe")
  for name, text in {
    "odd.py": "",
    "raises.py": (
      "import builtins\n"
      "def get_config(name='ValueError'):\n"
      "  raise getattr(builtins, name)('because')\n"
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
  }.items():
    (folder / name).write_text(text)
  (folder / "binary.py").write_bytes(bytes(range(256)))
  (folder / "damaged").mkdir()
  (folder / "damaged" / "config.json").mkdir()


@st.composite
def command_lines(draw):
  argv = []
  family = draw(st.sampled_from(sorted(FAMILIES)))
  if draw(st.integers(0, 9)):
    argv.append(f"--config={FAMILIES[family]}")
  elif draw(st.booleans()):
    argv.append(f"--config={draw(CONFIGS)}")
  if draw(st.integers(0, 4)):
    argv.append("--workdir=run")
  else:
    argv.append(f"--workdir={draw(WORKDIRS)}")
  for _ in range(draw(st.integers(0, 2))):
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
  return draw(st.permutations(argv)) if draw(st.booleans()) else argv


def describe(argv):
  """Does what the command does before it starts anything."""
  with contextlib.redirect_stdout(io.StringIO()):
    try:
      parsed = run_flags.parse(["train", *argv])
      run = train.describe(parsed)
    except UserError as error:
      readable(error)
      return None
    except SystemExit as ended:
      assert ended.code == 0
      return None
  event("described")
  return run


@bounded(100)
@given(argv=command_lines())
@example(argv=["--workdir=run"])
@example(argv=["--workdir=run", "--config.stac.batchsize=4"])
@example(argv=["--workdir=run", "--config.agent="])
@example(argv=["--workdir=run", "--config", "configs/nosuch.py"])
@example(argv=["--workdir=run", "--flagfile=nosuch"])
@example(argv=["--workdir=run", "--flagfile"])
@example(argv=["--workdir=run", "--config=raises.py:ZeroDivisionError"])
@example(argv=["--workdir=run", "--config=strange.py"])
@example(argv=["--workdir=run", "--config=none.py"])
@example(argv=["--workdir=run", "--config=syntax.py"])
@example(argv=["--workdir=run", "--config=pipe"])
@example(argv=["--workdir=run", "--config=binary.py"])
@example(argv=["--workdir=nul\0"])
@example(argv=["--workdir=~nosuchuser/run"])
@example(argv=["--workdir=damaged", "--config=configs/small.py:catch"])
@example(argv=["--workdir=run", "--launch=hosts", "--cluster=pipe"])
@example(argv=["--workdir=run", "--launch=hosts", "--cluster=/dev/zero"])
@example(argv=["--workdir=run", "--num_actors=1000000000"])
@example(argv=["--workdir=run", f"--num_actors={'9' * 5000}"])
def test_command_lines(odd_files, argv):
  describe(argv)


@bounded(30)
@given(config=CONFIGS, argument=TEXTS)
def test_configuration_files(odd_files, config, argument):
  describe(["--workdir=run", f"--config={config}"])
  describe(["--workdir=run", "--config", f"{config}:{argument}"])


# Values of a configuration.


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
    return
  event("described")


@bounded(100)
@given(configuration=configurations())
@example(configuration=("catch", {"environment_options.rows": 10**9}))
@example(configuration=("catch", {"environment_options.columns": 10**6}))
@example(configuration=("catch", {"environment": 3}))
@example(configuration=("catch", {"agent": ["stac"]}))
@example(configuration=("catch", {"seed": 10**30}))
@example(configuration=("catch", {"evaluation.greedy": "yes"}))
@example(configuration=("catch", {"patience_seconds": "long"}))
@example(configuration=("catch", {"evaluation": 3}))
@example(configuration=("catch", {"stac": None}))
@example(configuration=("catch", {"stac.num_heads": 10**9}))
@example(configuration=("catch", {"stac.batch_size": 10**12}))
@example(configuration=("catch", {"stac.torso_sizes": (2**20, 2**20)}))
@example(configuration=("catch", {"stac.trajectory_length": 2**20,
                                  "stac.batch_size": 2**20}))
@example(configuration=("catch", {"stac.learning_rate": 10**400}))
@example(configuration=("catch", {"stac.value_cost": 1e300}))
@example(configuration=("catch", {"num_environment_steps": 10**400}))
@example(configuration=("catch", {"num_environment_steps": 10**15}))
@example(configuration=("catch", {"stac.torso": ["mlp"]}))
@example(configuration=("atari", {"environment_options.num_threads": 10**6}))
@example(configuration=("atari", {"environment_options.max_noops": 10**9}))
@example(configuration=(
  "atari", {"environment_options.max_frames_per_episode": 2**40}))
@example(configuration=(
  "control", {"environment_options.action_repeat": 10**9}))
@example(configuration=(
  "rwrl", {"environment_options.random_observations": 10**9}))
@example(configuration=(
  "rwrl", {"environment_options.dropped_actions_steps": 2**70}))
@example(configuration=(
  "rwrl", {"environment_options.perturbation_max": 1e30}))
def test_values_of_a_configuration(configuration):
  with tempfile.TemporaryDirectory() as workdir:
    make(*configuration, workdir)


# Cluster files.


VALID = {
  "cluster": {"workerpool0": ["a:7070"], "workerpool1": ["b", "c"]},
  "task": {"type": "workerpool1", "index": 0},
}
HOSTS = st.one_of(
  st.sampled_from(["a", "b:7070", "10.0.0.1", "localhost", "a:", ":1", "a:0",
                   "a:65535", "a:65536", "a:٣", "[::1]:5", "a\n", "a..b"]),
  PLAIN,
)
POOLS = st.one_of(
  st.sampled_from(["workerpool0", "workerpool1", "workerpool2", "workerpool٣",
                   "workerpool" + "9" * 5000, "chief"]),
  st.text(max_size=3),
)
SPECS = st.fixed_dictionaries(
  {"cluster": st.one_of(
    st.fixed_dictionaries(
      {"workerpool0": st.just(["a:7070"])},
      optional={"workerpool1": st.lists(HOSTS, max_size=3)},
    ),
    st.dictionaries(POOLS, st.one_of(st.lists(HOSTS, max_size=3), PLAIN),
                    max_size=3),
    PLAIN,
  )},
  optional={
    "task": st.one_of(
      st.fixed_dictionaries({}, optional={"type": st.one_of(POOLS, PLAIN),
                                          "index": PLAIN}),
      PLAIN,
    ),
    "environment": PLAIN,
  },
)
# One thing of a specification that is right is another.
NEARLY = st.builds(
  lambda task, name, value, pool, hosts: {
    "cluster": {**VALID["cluster"], pool: hosts},
    "task": {**VALID["task"], **task, **({name: value} if name else {})},
  },
  st.sampled_from([
    {}, {"index": 1}, {"type": "workerpool0"}, {"index": "0"}, {"index": 7},
  ]),
  st.sampled_from([None, None, "type", "index", "more"]),
  PLAIN,
  st.sampled_from(["workerpool1", "workerpool2"]),
  st.one_of(st.just(["b", "c"]), st.lists(HOSTS, max_size=3, unique_by=str)),
)
PIECES = st.lists(
  st.sampled_from([
    "cluster", "task", ":", ": ", "\n", "  ", "- ", "{", "}", "[", "]", ",",
    "&a ", "*a", "<<: ", "!!int ", "!!float ''", "!!timestamp x", "!!bool x",
    "!!python/object/apply:os.abort []", "!!binary x", "!!set", "!!omap", "? ",
    "workerpool0", "workerpool1", '"a:7070"', "b", "|\n", ">\n", "%YAML", "---",
    "2001-99-99", "0001-01-01 00:00:00 +23:59", "\t", "\ufeff", ".nan", "0o9",
  ]),
  max_size=25,
).map("".join)
LAUGHS = "a0: &a0 [x]\n" + "".join(
  f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
  f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n"
  for n in range(1, 30)
)


def read_cluster(content, index, host, number):
  """Reads what a file, or the variable of the environment, has."""
  environment = {}
  if index is not None:
    environment["JOB_COMPLETION_INDEX"] = index
  with tempfile.TemporaryDirectory() as place:
    path = None
    if isinstance(content, bytes):
      path = pathlib.Path(place) / "cluster.yaml"
      path.write_bytes(content)
    else:
      environment["CLUSTER_SPEC"] = content
    with mock.patch.dict(os.environ, environment):
      try:
        cluster = cluster_lib.read(path and str(path), host, number)
      except UserError as error:
        readable(error)
        return
  event("described")
  assert cluster.describe(2) and cluster.host and cluster.num_actors > 0
  assert len(cluster.actors) in (0, number)


ENVIRONMENT_TEXTS = TEXTS.map(
  lambda text: text.encode(errors="replace").decode()
)


@bounded(400)
@given(
  content=st.one_of(
    st.binary(max_size=100),
    st.text(max_size=50).map(str.encode),
    PIECES.map(str.encode),
    PIECES.filter(lambda text: "\0" not in text),
    SPECS.map(lambda spec: json.dumps(spec).encode()),
    SPECS.map(lambda spec: yaml.safe_dump(spec).encode(errors="replace")),
    SPECS.map(json.dumps),
    *[NEARLY.map(json.dumps)] * 4,
    NEARLY.map(lambda spec: yaml.safe_dump(spec).encode(errors="replace")),
  ),
  index=st.one_of(st.none(), st.integers(0, 2).map(str), ENVIRONMENT_TEXTS),
  host=st.one_of(*[st.none()] * 4, st.sampled_from("abc"), TEXTS),
  number=st.one_of(*[st.just(2)] * 4, st.integers()),
)
@example(content=b"a: &a [*a]", index=None, host=None, number=1)
@example(content=b"cluster: &a {workerpool0: [*a]}", index=None, host=None,
         number=1)
@example(content=b"cluster: {workerpool0: [a], workerpool1: [b]}\n"
         b"task: &t {type: *t, index: *t}", index=None, host=None, number=1)
@example(content=(LAUGHS + "cluster: {workerpool0: [a], workerpool1: [b]}\n"
                  "task: {type: *a29, index: *a29}").encode(),
         index=None, host=None, number=1)
@example(content=(LAUGHS + "cluster: {workerpool0: *a29}").encode(),
         index=None, host=None, number=1)
@example(content=MERGES.encode(), index=None, host=None, number=1)
@example(content=b"a: !!int ''", index=None, host=None, number=1)
@example(content=b"a: !!bool x", index=None, host=None, number=1)
@example(content=b"a: !!timestamp x", index=None, host=None, number=1)
@example(content=b"a: 0001-01-01 00:00:00 +23:59", index=None, host=None,
         number=1)
@example(content=b"[" * 1000, index=None, host=None, number=1)
@example(content=json.dumps({**VALID, "task": {"type": "workerpool1"}}),
         index="9" * 5000, host=None, number=1)
@example(content=b"\xff\xfe\x00", index=None, host=None, number=1)
@example(content=b"#" * 2**21, index=None, host=None, number=1)
def test_cluster_files(content, index, host, number):
  read_cluster(content, index, host, number)


def test_a_cluster_file_that_works():
  with mock.patch.object(cluster_lib, "_FORM", ""):
    read_cluster(json.dumps(VALID), None, None, 2)
  for path in (".", "no/such", "nul\0", "pipe", "/dev/zero"):
    with pytest.raises(UserError):
      cluster_lib.read(path, None, 1)


# Checkpoints.


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
  event(f"loaded {step}")
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


@bounded(400)
@given(edits=EDITS)
def test_damaged_checkpoints(edits):
  with tempfile.TemporaryDirectory() as place:
    newest = saved(place, 1, 2)
    newest.write_bytes(edit(newest.read_bytes(), edits))
    assert check_load(place, {1, 2}) is not None
    (pathlib.Path(place) / "checkpoint_000000001.npz").unlink()
    check_load(place, {2})


@bounded(100)
@given(content=st.one_of(
  st.binary(max_size=300),
  st.binary(max_size=50).map(lambda tail: b"PK\x03\x04" + tail),
  st.binary(max_size=50).map(lambda tail: b"\x93NUMPY\x01\x00" + tail),
  st.binary(max_size=50).map(lambda tail: b"\x80\x04" + tail),
))
def test_foreign_checkpoints(content):
  with tempfile.TemporaryDirectory() as place:
    newest = saved(place, 1, 2)
    newest.write_bytes(content)
    assert check_load(place, {1}) == 1


JSON = st.recursive(
  st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
  lambda inner: st.one_of(
    st.lists(inner, max_size=2),
    st.dictionaries(st.text(max_size=3), inner, max_size=2),
  ),
  max_leaves=4,
)
OTHER_ARRAYS = st.sampled_from([
  np.array([["a", "b", "c"], ["d", "e", "f"]]),
  np.array([[b"a"] * 3] * 2),
  np.array([[None, 1, {}]] * 2, dtype=object),
  np.zeros((2, 3), [("x", np.float32), ("y", "U3")]),
  np.zeros((2, 3), complex),
  np.zeros((2, 3), np.float64),
  np.zeros((2, 3), ">f4"),
  np.zeros((2, 3), "datetime64[s]"),
  np.zeros((2, 3), "timedelta64[s]"),
  np.zeros((2, 3), "V8"),
  np.zeros((2, 3), np.int64),
  np.full((2, 3), np.nan, np.float32),
  np.array("nan"),
  np.float32(3.0),
])


def rewrite(path, change_arrays, change_metadata, *, sign=False):
  """Writes a checkpoint again; `sign` makes its checksum right."""
  with np.load(path) as file:
    arrays = {name: np.array(file[name]) for name in file.files}
  metadata = json.loads(str(arrays.pop("metadata")))
  change_arrays(arrays)
  metadata = change_metadata(metadata)
  if sign:
    metadata.pop("checksum")
    try:
      metadata["checksum"] = checkpointing._checksum(arrays, metadata)
    except (ValueError, TypeError):
      metadata["checksum"] = "none"
  np.savez(path, metadata=np.array(json.dumps(metadata)), **arrays)


@bounded(250)
@given(
  name=st.sampled_from(
    ["format", "checksum", "number", "training_seconds", "sizes", "new", None]
  ),
  value=JSON,
  drop=st.booleans(),
)
@example(name="format", value=True, drop=False)
@example(name="format", value=1, drop=False)
@example(name="format", value=1.0, drop=False)
@example(name="format", value=3, drop=False)
@example(name="format", value=float("nan"), drop=False)
@example(name="checksum", value=None, drop=True)
@example(name="number", value="many", drop=False)
@example(name=None, value=[], drop=False)
def test_changed_metadata(name, value, drop):
  def change_metadata(metadata):
    if name is None:
      return value
    if drop:
      metadata.pop(name, None)
    else:
      metadata[name] = value
    return metadata

  with tempfile.TemporaryDirectory() as place:
    newest = saved(place, 1, 2)
    rewrite(newest, lambda arrays: None, change_metadata)
    assert check_load(place, {1, 2}) is not None


@bounded(150)
@given(
  names=st.lists(st.sampled_from([
    "['params']['w']", "['params']['b']", "['step']", "['flag']", "extra",
  ]), min_size=1, max_size=2, unique=True),
  array=st.one_of(st.none(), OTHER_ARRAYS),
  sign=st.booleans(),
)
@example(names=["['params']['w']"], array=np.array([["a"] * 3] * 2), sign=True)
@example(
  names=["['params']['w']"], array=np.zeros((2, 3), "datetime64[s]"), sign=False
)
@example(
  names=["['params']['w']"], array=np.zeros((2, 3), [("x", "i4")]), sign=True
)
@example(names=["['params']['w']"], array=np.zeros((2, 3), complex), sign=True)
def test_other_arrays(names, array, sign):
  def change_arrays(arrays):
    for name in names:
      arrays.pop(name, None)
      if array is not None:
        arrays[name] = array

  with tempfile.TemporaryDirectory() as place:
    newest = saved(place, 1, 2)
    rewrite(newest, change_arrays, dict, sign=sign)
    try:
      state, _ = checkpointing.load(place, TEMPLATE)
    except checkpointing.CheckpointError as error:
      readable(error)
      return
    # Whole and of the right kinds: another run's, which nothing can tell, or
    # the one before.
    assert int(state["step"]) == 1 or sign or names == ["extra"]
    jax.tree_util.tree_map(
      lambda x, y: np.testing.assert_equal((x.shape, x.dtype),
                                           (y.shape, y.dtype)),
      state, dict(TEMPLATE),
    )


def compress(path):
  with zipfile.ZipFile(path) as file:
    members = {name: file.read(name) for name in file.namelist()}
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    for name, content in members.items():
      file.writestr(name, content)


def replace(make_other):
  def damage(path):
    path.unlink()
    make_other(path)

  return damage


@pytest.mark.parametrize("damage", [
  replace(pathlib.Path.mkdir),
  replace(os.mkfifo),
  replace(lambda path: path.symlink_to("nothing")),
  replace(lambda path: path.symlink_to(path)),
  replace(lambda path: path.symlink_to("/dev/zero")),
  replace(lambda path: path.symlink_to(path.parent)),
  replace(lambda path: np.savez(path, a=np.zeros(3))),
  compress,
], ids=["directory", "pipe", "dangling", "loop", "device", "parent", "foreign",
        "compressed"])
@pytest.mark.timeout(30)
def test_what_is_only_called_a_checkpoint(tmp_path, damage, caplog):
  newest = saved(tmp_path, 1, 2)
  damage(newest)
  assert check_load(tmp_path, {1}) == 1
  (record,) = caplog.records
  assert record.levelname == "ERROR" and str(newest) in record.getMessage()
  # Training goes on from there, and what it writes counts as the newest.
  for step in (3, 4, 5):
    checkpointing.save(
      tmp_path, step, state_of(step), metadata_of(step), keep=1
    )
  assert check_load(tmp_path, {5}) == 5


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


# What a work directory has.


@pytest.fixture(scope="module")
def a_run():
  with tempfile.TemporaryDirectory() as place:
    config = load_config("catch")
    config.stac.torso_sizes = config.stac.head_sizes = (4,)
    experiment = validation.make_experiment(config, 1, place)
    resume.prepare_workdir(experiment)
    yield experiment


@bounded(150)
@given(content=st.one_of(
  st.binary(max_size=30),
  JSON.map(lambda value: json.dumps(value).encode()),
  st.tuples(
    st.sampled_from(["agent", "environment", "config", "seed", "new"]), JSON
  ),
))
@example(content=b"[]")
@example(content=b"[" * 100_000)
@example(content=b'{"environment": "catch", "agent": "stacx", "config": []}')
def test_config_json(a_run, content):
  path = a_run.workdir / "config.json"
  if isinstance(content, tuple):
    name, value = content
    run = {**a_run.to_json(), name: value}
    content = json.dumps(run).encode()
  path.write_bytes(content)
  try:
    resume.prepare_workdir(a_run)
  except UserError as error:
    readable(error)
