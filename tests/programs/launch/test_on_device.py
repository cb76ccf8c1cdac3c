"""Runs side by side in one compiled program."""

import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_stac
from acme_stac import checkpointing, core, evaluation, on_device
from programs import evaluate, export
from programs.launch import flags as run_flags
from programs.launch import on_device as launch
from programs.launch import progress, session
from programs.nodes.device_program import Chunk, DeviceProgram
from programs.run.errors import UserError
from tests.support import runs
from tests.support.jax_environments import Corridor

SMALL = (
  "--launch=on_device",
  "--config.agent=stac",
  "--config.stac.batch_size=4",
  "--config.stac.trajectory_length=5",
  "--config.stac.torso_sizes=(8,)",
  "--config.stac.head_sizes=(8,)",
  "--config.evaluation.episodes=3",
  "--config.evaluation.every_steps=200",
  "--config.log_every_seconds=0.001",
)
SEVERAL = ("--vary=entropy_cost=0.01,3e-2",)
NAMES = ["entropy_cost=0.01/0", "entropy_cost=0.03/0"]
# 20 environment steps an update.
BUDGET = "--config.num_environment_steps={}"


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The directory of two runs of 30 updates."""
  directory = tmp_path_factory.mktemp("trained")
  arguments = (
    *SMALL, *SEVERAL, BUDGET.format(600), "--config.checkpoint_every_updates=10"
  )
  assert runs.train(directory, *arguments) == 0
  return directory


def describe(directory, *arguments, config="configs/small.py:catch"):
  """Returns what the command would launch."""
  argv = [f"--config={config}", f"--workdir={directory}", *SMALL, *arguments]
  described = session.describe(run_flags.parse(argv))
  for lock in (described.lock, *described.member_locks):
    lock.close()
  return described


class StillProgram:
  """Stands for a `DeviceProgram` of runs whose parameters stay as they are."""

  devices = jax.devices()

  def __init__(self, experiments, unused_devices):
    self._runs = len(experiments)
    first = experiments[0]
    networks = acme_stac.make_networks(first.environment_spec, first.config)
    self.state_shapes = jax.eval_shape(
      core.make_update(networks, first.config).init, jax.random.PRNGKey(0)
    )

  def start(self, step, unused_states):
    training = jax.tree_util.tree_map(
      lambda x: np.zeros((self._runs, *x.shape), x.dtype), self.state_shapes
    )
    return on_device.LoopState(
      training._replace(step=training.step + step), *[()] * 4
    )

  def advance(self, state, updates):
    training = state.training
    training = training._replace(step=training.step + np.int32(updates))
    zeros = np.zeros(self._runs, np.int32)
    names = ("episodes", "episode_return_sum", "episode_length_sum")
    return Chunk(
      state._replace(training=training), {"skipped_updates": zeros + 1},
      dict.fromkeys(names, zeros),
    )

  def evaluate(self, unused_state, unused_step):
    return on_device.Evaluation(*np.zeros((3, self._runs, 3)))


def steps(directory):
  return [
    checkpointing.step_of(path)
    for path in checkpointing.list_checkpoints(directory / "checkpoints")
  ]


def last_steps(directory):
  rows = runs.rows(directory / "logs" / "learner.csv")
  return [int(row["learner_steps"]) for row in rows]


def test_runs_side_by_side_are_runs_like_any_other(trained):
  found = evaluation.runs.find([trained])
  assert not found.problems
  assert [run.finished for run in found.runs] == [True] * 2
  for number, name in enumerate(NAMES):
    directory = trained / name
    described = json.loads((directory / "config.json").read_text())
    assert described["config"]["entropy_cost"] == (0.01, 0.03)[number]
    assert last_steps(directory)[-1] == 30
    evaluations = runs.rows(directory / "logs" / "evaluator.csv")
    assert [row["learner_steps"] for row in evaluations] == [
      "0", "10", "20", "30"
    ]
    assert evaluations[-1]["episodes"] == "3"
    assert float(evaluations[-1]["episode_length_mean"]) == 9.0
    assert steps(directory) == [10, 20, 30]
    assert evaluation.summary.summarise_run(directory)[
      "runs_side_by_side"
    ] == 2
    assert (directory / "plots" / "learning_curve.png").exists()
    assert len(list((directory / "tensorboard").iterdir())) == 2
    policy = acme_stac.load_policy(directory)
    board = np.zeros((10, 5), np.float32)
    assert policy(board, policy.initial_state()) in (0, 1, 2)
  one, other = [runs.states(trained / name) for name in NAMES]
  assert any((one[key] != other[key]).any() for key in one if "params" in key)


def test_every_combination_has_a_directory(tmp_path):
  arguments = ("--seeds=2", "--vary=discount=0.9,1", "--vary=alpha=0,1e-7")
  experiments = describe(tmp_path, *arguments, "--config.seed=5").experiments
  assert {
    str(run.workdir.relative_to(tmp_path)):
      (run.seed, run.config.discount, run.config.alpha)
    for run in experiments
  } == {
    "discount=0.9/alpha=0/0": (5, 0.9, 0.0),
    "discount=0.9/alpha=0/1": (6, 0.9, 0.0),
    "discount=0.9/alpha=1e-07/0": (5, 0.9, 1e-7),
    "discount=0.9/alpha=1e-07/1": (6, 0.9, 1e-7),
    "discount=1/alpha=0/0": (5, 1.0, 0.0),
    "discount=1/alpha=0/1": (6, 1.0, 0.0),
    "discount=1/alpha=1e-07/0": (5, 1.0, 1e-7),
    "discount=1/alpha=1e-07/1": (6, 1.0, 1e-7),
  }
  for run in experiments:
    described = json.loads((run.workdir / "config.json").read_text())
    assert described == run.to_json()


def test_episodes_are_logged_as_means(trained):
  directory = trained / NAMES[0]
  rows = runs.rows(directory / "logs" / "episodes_actor_0.csv")
  episodes = np.array([int(row["episodes"]) for row in rows])
  returns = np.array([float(row["episode_return"]) for row in rows])
  # An episode of Catch is ten rows, one of them without an action, and four
  # environments begin one at once.
  assert episodes.sum() == 4 * (30 * 5 // 10)
  assert {float(row["length"]) for row in rows} == {9.0}
  learner = runs.rows(directory / "logs" / "learner.csv")
  assert float(learner[-1]["episode_return"]) == pytest.approx(
    (episodes * returns).sum() / episodes.sum()
  )
  assert all(row["policy_age_max"] == "0" for row in learner)


def test_runs_are_stopped_and_go_on(trained, tmp_path, monkeypatch, capsys):
  directory = tmp_path / "run"
  shutil.copytree(trained, directory)
  before = {name: runs.states(directory / name) for name in NAMES}
  shown = []

  def show(self, status):
    shown.append(status)
    if len(shown) == 2:
      os.kill(os.getpid(), signal.SIGINT)

  monkeypatch.setattr(progress.Progress, "show", show)
  resumed = []
  start = DeviceProgram.start

  def watch(self, step, states):
    state = start(self, step, states)
    resumed.append(jax.device_get(state.training))
    return state

  monkeypatch.setattr(DeviceProgram, "start", watch)
  arguments = (*SMALL, *SEVERAL, BUDGET.format(10**9))
  assert runs.train(directory, *arguments) == 0
  output = capsys.readouterr().out
  assert "2 runs of 1,000,000,000 environment steps" in output
  assert "Resuming after 30 updates." in output
  assert "num_environment_steps: 600 -> 1000000000" in output
  assert "Stopped; the checkpoint of every run is saved." in output
  assert shown[0]["runs"] == 2 and shown[0]["steps"] > 600
  assert shown[-1]["rate"] is None or shown[-1]["rate"] > 0
  for number, name in enumerate(NAMES):
    arrays = checkpointing.named_arrays(
      jax.tree_util.tree_map(lambda x, n=number: x[n], resumed[0])
    )
    for key, array in arrays.items():
      np.testing.assert_array_equal(array, before[name][key])
    done = last_steps(directory / name)
    assert done == sorted(set(done))
    assert steps(directory / name)[-1] == done[-1] > 30


def test_a_run_that_was_killed_while_it_saved_holds_the_others_back(
  trained, tmp_path
):
  """As kill -9 between two checkpoints leaves them."""
  ahead, behind = NAMES
  directory = tmp_path / "run"
  shutil.copytree(trained, directory)
  last = checkpointing.list_checkpoints(directory / behind / "checkpoints")[-1]
  last.write_bytes(last.read_bytes()[:100])
  arguments = (*SEVERAL, BUDGET.format(10**6))
  described = describe(directory, *arguments)
  assert described.step == 20
  assert described.changes[-1] == (
    f"{ahead}: 30 updates -> 20, which every run has done"
  )
  assert [steps(directory / name) for name in NAMES] == [[10, 20]] * 2
  # Nothing is thrown away for a run that has lost everything.
  for path in (directory / behind / "checkpoints").iterdir():
    path.unlink()
  with pytest.raises(UserError) as error:
    describe(directory, *arguments)
  assert "no number of updates in common" in str(error.value)
  assert f"{behind}: none" in str(error.value)
  # Killed while it wrote its first.
  checkpointing.list_checkpoints(directory / ahead / "checkpoints")[-1].unlink()
  assert describe(directory, *arguments).step == 0
  assert [steps(directory / name) for name in NAMES] == [[], []]


def test_a_full_disk_costs_checkpoints_and_keeps_runs_together(
  tmp_path, monkeypatch, caplog
):
  write = checkpointing.write
  full = True

  def fail(path, *arguments):
    if full and path.parent.parent.name == "1":
      raise OSError(28, "No space left on device")
    write(path, *arguments)

  found = []

  def show(self, status):
    nonlocal full
    found.append([steps(tmp_path / "run" / name) for name in "01"])
    full = status["steps"] < 400

  monkeypatch.setattr(launch, "DeviceProgram", StillProgram)
  monkeypatch.setattr(checkpointing, "write", fail)
  monkeypatch.setattr(progress.Progress, "show", show)
  assert runs.train(
    tmp_path / "run", *SMALL, "--seeds=2", BUDGET.format(600),
    "--config.checkpoint_every_updates=5", "--config.checkpoints_to_keep=1",
  ) == 0
  assert "No space left on device" in caplog.text
  assert "1 of 1 updates of" in caplog.text
  # The first is never more than one checkpoint ahead.
  assert [[5], []] in found and [[5, 10], []] not in found
  assert steps(tmp_path / "run" / "0") == steps(tmp_path / "run" / "1") == [
    25, 30
  ]


def test_runs_go_from_one_layout_to_another(tmp_path):
  serial = ("--launch=serial", "--config.environments_per_actor=4")
  small = (*SMALL, "--config.agent=impala")
  assert runs.train(tmp_path, *small, *serial, BUDGET.format(100)) == 0
  assert runs.train(tmp_path, *small, BUDGET.format(200)) == 0
  between = runs.states(tmp_path)
  assert runs.train(tmp_path, *small, *serial, BUDGET.format(300)) == 0
  assert between[".step"] == 10
  assert runs.states(tmp_path)[".step"] == 15
  # Columns of every layout are the same.
  rows = runs.rows(tmp_path / "logs" / "learner.csv")
  done = [int(row["learner_steps"]) for row in rows]
  assert done == sorted(set(done)) and {5, 10, 15} <= set(done)
  assert all(None not in row and "" not in row.values() for row in rows)
  assert float(rows[-1]["skipped_updates"]) == 0
  evaluations = runs.rows(tmp_path / "logs" / "evaluator.csv")
  assert all("" not in row.values() for row in evaluations)


def test_a_run_does_not_depend_on_the_others_or_the_devices(tmp_path):
  arguments = (*SEVERAL, "--seeds=2", "--config.agent=impala")
  experiments = describe(tmp_path, *arguments).experiments
  updates = 6

  def train(some):
    program = DeviceProgram(some, jax.devices()[:4])
    assert len(program.devices) == 4
    chunk = program.advance(program.start(0, []), updates)
    episodes = program.evaluate(chunk.state, updates)
    return jax.device_get((chunk.state.training, chunk.ended, episodes))

  # Four runs on a device each, and one whose environments have one each.
  together, alone = train(experiments), train(experiments[-1:])
  assert together[0].step.tolist() == [updates] * 4
  for one, other in zip(
    jax.tree_util.tree_leaves(alone), jax.tree_util.tree_leaves(together),
    strict=True,
  ):
    np.testing.assert_allclose(one[0], other[-1], rtol=1e-4, atol=1e-5)


ERRORS = [
  (("--vary=entropy_cots=0.1",), "Did you mean 'entropy_cost'"),
  (("--vary=entropy_cost",), "--vary=entropy_cost=0.01,0.03, got"),
  (("--vary=entropy_cost=0.1,x",), "--vary must be FIELD=VALUE,VALUE"),
  (("--vary=entropy_cost=0.1,1e-1",), "repeats"),
  (("--vary=entropy_cost=0.1", "--vary=entropy_cost=0.2"), "repeats"),
  (("--vary=discount=0.9,1.9",), "--vary: discount must be"),
  (("--seeds=0",), "--seeds must be from 1 to 1,000"),
  (("--seeds=2", "--config.seed=2147483647"), "--seeds: seed must be"),
  (("--seeds=2", "--launch=serial"), "go with --launch=on_device"),
  (("--vary=discount=0.9", "--launch=serial"), "go with --launch=on_device"),
  (("--num_actors=2",), "has no actors"),
  (("--config.environments_per_actor=8",), "must divide --config.stac.batch"),
  (("--seeds=2", "--config.wandb_project=x"), "wandb"),
]


@pytest.mark.parametrize("arguments,message", ERRORS)
def test_errors_before_anything_is_compiled(tmp_path, arguments, message):
  with pytest.raises(UserError) as error:
    describe(tmp_path / "run", *arguments)
  assert message in str(error.value)
  assert not (tmp_path / "run").exists()


def test_an_environment_that_is_not_in_jax(tmp_path):
  with pytest.raises(UserError) as error:
    describe(tmp_path, config="configs/small.py:gymnasium:CartPole-v1")
  message = str(error.value)
  assert "--launch=on_device takes environments written in JAX" in message
  assert "'gymnasium:CartPole-v1'" in message
  assert "--launch=serial, colocated" in message


def test_an_environment_whose_shapes_change(tmp_path):
  config = "configs/small.py:python:tests.programs.launch.test_on_device:Bad"
  with pytest.raises(UserError) as error:
    describe(tmp_path / "run", config=config)
  assert "'bad' cannot be trained" in str(error.value)
  assert "float32[6], as its spec says, got float32[7]" in str(error.value)
  assert not (tmp_path / "run").exists()


class Bad(Corridor):
  """Its observations after the first are longer."""

  name = "bad"

  def step(self, state, action, key):
    state, timestep = super().step(state, action, key)
    longer = jnp.append(timestep.observation, 0.0)
    return state, timestep._replace(observation=longer)


def test_plots_that_a_signal_prevented_are_drawn_by_the_same_command(
  trained, tmp_path, capsys
):
  directory = tmp_path / "run"
  shutil.copytree(trained, directory)
  for name in NAMES:
    shutil.rmtree(directory / name / "plots")
  arguments = (*SMALL, *SEVERAL, BUDGET.format(600))
  assert runs.train(directory, *arguments) == 0
  assert "This run is done." in capsys.readouterr().out
  for name in NAMES:
    assert (directory / name / "plots" / "learning_curve.png").exists()


def test_runs_that_are_left_out_are_named(trained, tmp_path):
  shutil.copytree(trained, tmp_path / "run")
  described = describe(
    tmp_path / "run", "--vary=entropy_cost=0.01", BUDGET.format(600)
  )
  assert described.changes[-1] == f"{NAMES[1]}: not continued"


@pytest.mark.parametrize(
  "command, flags", [(evaluate, []), (export, ["--output=policy.npz"])]
)
def test_the_directory_of_several_runs_is_none_with_a_policy(
  trained, command, flags
):
  with pytest.raises(UserError) as error:
    command.main([str(trained), *flags])
  assert "has 2 runs in directories below it. Give one of them" in str(
    error.value
  )
  assert ", ".join(NAMES) in str(error.value)


@pytest.mark.parametrize(
  "argument, said",
  [
    ("--seeds=3", "3 runs on 3 of 4 devices (cpu): a number of runs that 4"
     " divides would use all; compiling"),
    ("--config.environments_per_actor=2", "1 run on 3 of 4 devices (cpu): a"
     " number of environments (--config.environments_per_actor) that 4"),
  ],
)
def test_idle_devices_are_named(tmp_path, capsys, monkeypatch, argument, said):
  devices = jax.devices()[:4]
  monkeypatch.setattr(jax, "local_devices", lambda **_: devices)
  monkeypatch.setattr(StillProgram, "devices", devices[:3])
  monkeypatch.setattr(launch, "DeviceProgram", StillProgram)
  assert runs.train(tmp_path, *SMALL, argument, BUDGET.format(20)) == 0
  assert said in capsys.readouterr().out


def test_directories_of_another_arrangement(trained, tmp_path):
  with pytest.raises(UserError, match="Give the --seeds and --vary"):
    describe(trained, BUDGET.format(10**6))
  with pytest.raises(UserError, match="is the work directory of one run"):
    describe(trained / NAMES[0], "--seeds=2")
  directory = tmp_path / "run"
  shutil.copytree(trained, directory)
  with pytest.raises(UserError) as error:
    describe(directory, *SEVERAL, "--config.agent=impala")
  assert f"{NAMES[0]} holds a run of agent 'stac'" in str(error.value)
  # Runs that are further than the one that is added.
  # Nothing of them is lost, be it only one checkpoint.
  for path in (directory / NAMES[0] / "checkpoints").iterdir():
    if not path.name.endswith("30.npz"):
      path.unlink()
  before = steps(directory / NAMES[0])
  with pytest.raises(UserError) as error:
    describe(directory, "--seeds=2", *SEVERAL, BUDGET.format(10**6))
  assert "entropy_cost=0.01/1, which is new, have done 30" in str(error.value)
  assert "--config.seed=1" in str(error.value)
  assert before == steps(directory / NAMES[0]) == [30]


def test_a_single_run_below_the_directory_goes_on(tmp_path):
  arguments = (*SMALL, "--vary=entropy_cost=0.1", BUDGET.format(40))
  assert runs.train(tmp_path, *arguments) == 0
  described = describe(
    tmp_path, "--vary=entropy_cost=0.1", BUDGET.format(10**6)
  )
  assert described.step == 2 and len(described.member_locks) == 1
  with pytest.raises(UserError, match="is the work directory of one run"):
    describe(tmp_path / "entropy_cost=0.1" / "0", "--vary=entropy_cost=0.1")
