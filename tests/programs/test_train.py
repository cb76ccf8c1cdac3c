"""The command itself, with real processes."""

import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import psutil
import pytest

import acme_stac
from acme_stac import checkpointing
from programs import train
from programs.launch import ending, launching
from programs.nodes import nodes
from programs.run import flags as run_flags
from programs.run import machine, resume
from programs.run import workdir as workdir_lib
from programs.run.errors import UserError
from tests.support.runs import (
  SMALL,
  command,
  environment,
  learner_steps,
  make_experiment,
  nodes_of,
  rows,
  run,
  start,
  wait_for,
)


@pytest.mark.slow
def test_local_mp_trains_stops_and_leaves_nothing(tmp_path):
  result = run(
    tmp_path,
    "--num_actors=2",
    "--config.num_queues=2",
    "--config.agent=stacx",
    "--config.num_environment_steps=60000",
    "--config.stac.learning_rate=1e-2",
    *SMALL,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert not nodes_of(tmp_path)
  assert re.search(r"[\d,]+/60,160 steps .*return", result.stdout)
  assert "Done." in result.stdout
  # The budget, in whole batches, and no step more on either side.
  learner = rows(tmp_path / "logs" / "learner.csv")
  assert float(learner[-1]["environment_steps"]) == 60160
  evaluator = rows(tmp_path / "logs" / "evaluator.csv")
  assert float(evaluator[-1]["environment_steps"]) == 60160
  made = sum(
    float(rows(tmp_path / "logs" / f"actor_{i}.csv")[-1][
      "actor_environment_steps"])
    for i in range(2)
  )
  assert made <= 60160 + 2 * 320
  # Every step that an actor made was learned from, once.
  episodes = [
    row
    for i in range(2)
    for row in rows(tmp_path / "logs" / f"episodes_actor_{i}.csv")
  ]
  assert abs(len(episodes) - 60160 / 10) <= 2 * 16
  assert {row["length"] for row in episodes} == {"9"}
  last = learner[-1]
  for head in range(3):
    assert 0.9 < float(last[f"sigma_discount_head{head}"]) < 1.0
  for name in (
    "learning_curve", "metaparameters", "metagradient", "pipeline"
  ):
    image = tmp_path / "plots" / f"{name}.png"
    assert image.stat().st_size > 5000
  assert list((tmp_path / "tensorboard").iterdir())
  # Chance is about -0.6: it has learned.
  episodes.sort(key=lambda row: float(row["actor_steps"]))
  returns = [float(row["episode_return"]) for row in episodes]
  assert np.mean(returns[-1000:]) > np.mean(returns[:1000]) + 0.1

  # Done is done; a larger budget goes on from there.
  again = run(
    tmp_path, "--config.num_environment_steps=60000", *SMALL
  )
  assert "This run is done" in again.stdout and again.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_end(tmp_path, number):
  process = start(tmp_path, "--config.num_environment_steps=100000000", *SMALL)
  try:
    wait_for(lambda: learner_steps(tmp_path) > 5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
  finally:
    process.kill()
  assert process.returncode == 0, output
  assert "the checkpoint is saved" in output
  assert not nodes_of(tmp_path)
  # Whoever stops a run does not wait for them.
  assert not (tmp_path / "plots").exists()
  (saved,) = checkpointing.list_checkpoints(tmp_path / "checkpoints")
  assert int(saved.stem.split("_")[1]) >= learner_steps(tmp_path)


@pytest.mark.slow
def test_killed_launcher_leaves_no_node_and_resumes(tmp_path):
  arguments = (
    "--config.num_environment_steps=10000000",
    "--config.checkpoint_every_seconds=1.",
    *SMALL,
  )
  process = start(tmp_path, *arguments)
  try:
    checkpoints = tmp_path / "checkpoints"
    wait_for(lambda: len(checkpointing.list_checkpoints(checkpoints)) > 1)
  finally:
    process.kill()
  wait_for(lambda: not nodes_of(tmp_path))
  newest = checkpointing.list_checkpoints(checkpoints)[-1]
  step = int(newest.stem.split("_")[1])
  with np.load(newest) as file:
    eta = file[".metaparams['discount']"]
  before = rows(tmp_path / "logs" / "learner.csv")

  process = start(tmp_path, *arguments)
  try:
    wait_for(
      lambda: len(rows(tmp_path / "logs" / "learner.csv")) > len(before) + 2
    )
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
  finally:
    process.kill()
  assert f"Resuming after {step:,} updates" in output
  first = rows(tmp_path / "logs" / "learner.csv")[len(before)]
  assert int(float(first["learner_steps"])) == step + 1
  np.testing.assert_allclose(
    float(first["sigma_discount_head0"]), 1 / (1 + np.exp(-eta[0])), rtol=1e-6
  )
  # The learning rate goes on where it was.
  fraction = step / (10_000_000 / 640)
  rate = [float(row["learning_rate"]) for row in before]
  assert float(first["learning_rate"]) <= rate[0] * (1 - fraction) * 1.001


@pytest.mark.slow
def test_serial_is_repeatable_and_resumes(tmp_path):
  arguments = (
    "--launch=serial",
    "--config.num_environment_steps=12800",
    "--num_actors=2",
    *SMALL,
  )
  states = []
  for name in ("a", "b"):
    result = run(tmp_path / name, *arguments)
    assert result.returncode == 0, result.stderr
    (newest,) = checkpointing.list_checkpoints(tmp_path / name / "checkpoints")
    with np.load(newest) as file:
      states.append({k: file[k] for k in file.files if k != "metadata"})
  assert states[0].keys() == states[1].keys()
  for name, array in states[0].items():
    np.testing.assert_array_equal(array, states[1][name])
  # What the checkpoint's numbers mean cannot change.
  result = run(
    tmp_path / "a", *arguments, "--config.stac.metaparameter_range=clip",
    "--config.stac.metaparameter_init=0.9",
  )
  assert result.returncode == 2
  assert "metaparameter_range 'sigmoid', not 'clip'" in result.stderr
  # A run whose budget grows goes on.
  result = run(tmp_path / "a", *arguments,
               "--config.num_environment_steps=19200")
  assert "Resuming after" in result.stdout
  assert "changed: --config.num_environment_steps" in result.stdout
  assert learner_steps(tmp_path / "a") == 19200 // 640


@pytest.mark.slow
def test_serial_killed_and_resumed_is_as_if_it_had_not_been(tmp_path):
  arguments = (
    "--launch=serial",
    "--config.num_environment_steps=64000",
    "--config.checkpoint_every_updates=40",
    "--config.stac.learning_rate=1e-2",
    *SMALL,
    "--config.evaluation.episodes=0",
  )
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  result = run(whole, *arguments)
  assert result.returncode == 0, result.stderr
  process = start(killed, *arguments)
  try:
    # It dies some updates behind the checkpoint.
    wait_for(lambda: learner_steps(killed) >= 44)
  finally:
    process.kill()
    process.communicate()
  saved = checkpointing.list_checkpoints(killed / "checkpoints")
  step = int(saved[-1].stem.split("_")[1])
  # How soon the signal comes is the machine's matter.
  assert step in (40, 80)
  result = run(killed, *arguments)
  assert f"Resuming after {step} updates" in result.stdout
  states = []
  for workdir in (whole, killed):
    newest = checkpointing.list_checkpoints(workdir / "checkpoints")[-1]
    assert newest.name == "checkpoint_000000100.npz"
    with np.load(newest) as file:
      states.append({k: file[k] for k in file.files if k != "metadata"})
  for name, array in states[0].items():
    np.testing.assert_array_equal(array, states[1][name])


@pytest.mark.slow
def test_serial_is_on_policy(tmp_path):
  """Both trajectories of an A2C update are made by the parameters before it."""
  result = run(
    tmp_path,
    "--launch=serial",
    "--config.agent=a2c_meta_gamma",
    "--config.num_environment_steps=1800",
    "--config.evaluation.episodes=0",
    "--config.log_every_seconds=0.001",
  )
  assert result.returncode == 0, result.stderr
  learner = rows(tmp_path / "logs" / "learner.csv")
  assert len(learner) > 5
  for row in learner:
    assert float(row["policy_age_max"]) == 0.0
    assert abs(float(row["importance_weight_max"]) - 1.0) < 1e-4
    assert abs(float(row["importance_weight_mean"]) - 1.0) < 1e-4


@pytest.mark.slow
def test_episodes_that_never_end_are_cut_off_in_evaluations(tmp_path):
  arguments = (
    "--launch=serial",
    "--config.agent=impala",
    "--config.num_environment_steps=3200",
    *SMALL,
    "--config.evaluation.max_episode_steps=20",
  )
  config = "configs/small.py:python:tests.support.faulty:Endless"
  result = run(tmp_path, *arguments, config=config)
  assert result.returncode == 0, result.stderr
  assert "(4 of 4 cut off)" in result.stdout
  evaluations = rows(tmp_path / "logs" / "evaluator.csv")
  assert float(evaluations[-1]["environment_steps"]) == 3200
  for row in evaluations:
    assert float(row["episodes_cut_off"]) == 4
    assert float(row["episode_length_mean"]) == 20
  # Nobody has to hear of it.
  with open("/dev/full", "w") as full:
    again = subprocess.run(
      command(tmp_path, *arguments, config=config),
      stdout=full, stderr=full, env=environment(), timeout=300, check=False,
    )
  assert again.returncode == 0


@pytest.mark.slow
def test_local_mt(tmp_path):
  result = run(
    tmp_path,
    "--launch=local_mt",
    "--config.agent=impala",
    "--config.num_environment_steps=20000",
    *SMALL,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert "Done." in result.stdout
  assert learner_steps(tmp_path) == -(-20000 // 640)
  assert rows(tmp_path / "logs" / "evaluator.csv")


VARIANTS = [
  ("metagradient_impala", "catch", 20_000, 640),
  ("stacx_gamma_embedding", "catch", 20_000, 640),
  ("stacx_random_ensemble", "catch", 20_000, 640),
  ("a2c_meta_gamma", "gymnasium:CartPole-v1", 3_000, 60),
  ("stacx_average_ensemble", "control:cartpole/balance", 6_480, 240),
]


@pytest.mark.slow
def test_colocated_with_devices_set_aside(tmp_path):
  arguments = (
    "--launch=colocated",
    "--num_actors=2",
    "--config.stac.batch_size=4",
    "--config.environments_per_actor=2",
    "--config.checkpoint_every_seconds=1",
    *SMALL,
  )
  devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}

  def run_for(steps):
    return subprocess.run(
      command(
        tmp_path / "run", *arguments, f"--config.num_environment_steps={steps}"
      ),
      capture_output=True, text=True, timeout=300,
      env={**environment(), **devices},
    )

  result = run_for(4000)
  assert result.returncode == 0, result.stderr
  learners, acting = re.search(
    r"Learner on \[(.*)\], inference on \[(.*)\]", result.stdout
  ).groups()
  assert len(re.findall(r"id=\d", learners)) == 4, learners
  assert len(re.findall(r"id=\d", acting)) == 4, acting
  logs = tmp_path / "run" / "logs"
  learner = rows(logs / "learner.csv")
  assert float(learner[-1]["environment_steps"]) == 4000
  assert all(0 <= float(row["queue_fill"]) <= 1 for row in learner)
  for index in range(2):
    assert float(rows(logs / f"actor_{index}.csv")[-1]["share_inference"]) > 0
  assert float(rows(logs / "evaluator.csv")[-1]["learner_steps"]) == 50

  result = run_for(8000)
  assert result.returncode == 0, result.stderr
  assert "Resuming after 50 updates" in result.stdout
  assert float(rows(logs / "learner.csv")[-1]["environment_steps"]) == 8000


@pytest.mark.slow
@pytest.mark.parametrize("agent,level,budget,per_update", VARIANTS)
def test_variants_train_in_the_program(
  tmp_path, agent, level, budget, per_update
):
  """Held-out batches for the learner, γ and heads for the actors."""
  result = run(
    tmp_path,
    "--launch=local_mt",
    f"--config.agent={agent}",
    f"--config.num_environment_steps={budget}",
    "--config.log_every_seconds=0.01",
    config=f"configs/small.py:{level}",
  )
  assert result.returncode == 0, result.stdout + result.stderr
  learner = rows(tmp_path / "logs" / "learner.csv")
  updates = -(-budget // per_update)
  assert int(float(learner[-1]["learner_steps"])) == updates
  assert float(learner[-1]["skipped_updates"]) == 0
  sigmas = {row["sigma_discount_head0"] for row in learner}
  assert len(sigmas) > 1
  assert all(0.0 <= float(sigma) <= 1.0 for sigma in sigmas)
  assert -1.0 <= float(learner[-1]["gradient_cosine"]) <= 1.0
  assert (tmp_path / "plots" / "metagradient.png").stat().st_size > 5000


ERRORS = [
  (("--config.agent=stackx",), "Did you mean 'stacx'"),
  (("--config.environment=atari:pongg",), "Did you mean 'pong'"),
  (("--config.environment=control:cartpole/swingupp",), "cartpole/swingup"),
  (("--config.stac.batch_size=0",), "batch_size must be a whole number"),
  (("--config.stac.discount=1.5",), "discount must be"),
  (("--config.stac.batchsize=4",), "Did you mean 'batch_size'"),
  (
    ("--config=configs/atari.py:pong",
     "--config.environment_options.sticky_action=0.25"),
    "'sticky_action'. Did you mean 'sticky_action_probability'",
  ),
  (
    ("--config=configs/small.py:python:coridor:Corridor",
     "--config.environment_options.length=6"),
    "No module named 'coridor'",
  ),
  (("--config.num_environment_steps=-5",), "num_environment_steps"),
  (("--num_actors=0",), "num_actors must be"),
  (("--config.environments_per_actor=5",), "must divide"),
  (("--config.environments_per_actor=-1",), "environments_per_actor"),
  (("--workdir=/proc/none",), "/proc/none cannot be written"),
  (("--workdir=",), "--workdir=runs/NAME"),
  (("--launch=cloud",), "invalid choice"),
  (("--config=configs/smal.py",), "configs/smal.py"),
  (("--nosuchflag",), "nosuchflag"),
  (("stray",), "Unrecognized arguments: stray"),
]


@pytest.mark.parametrize("arguments,message", ERRORS)
def test_errors_before_any_process(tmp_path, arguments, message):
  argv = ["--config=configs/small.py:catch",
          f"--workdir={tmp_path / 'run'}", *arguments]
  with pytest.raises(UserError) as error:
    train.describe(run_flags.parse(argv))
  assert message in str(error.value)
  assert not (tmp_path / "run" / "logs" / "nodes").exists()


@pytest.mark.parametrize("arguments,message", [ERRORS[0], ERRORS[-1]])
def test_errors_of_the_command(tmp_path, arguments, message):
  result = run(tmp_path / "run", *arguments)
  assert result.returncode == 2, result.stdout + result.stderr
  assert message in result.stderr
  assert "Traceback" not in result.stderr
  assert result.stderr.count("Error: ") == 1


def test_stopped_before_the_first_update(tmp_path, monkeypatch, capsys):
  def stop(*unused_args):
    raise ending.Interrupted(signal.SIGINT)

  monkeypatch.setattr(launching, "run_serial", stop)
  parsed = run_flags.parse(
    ["--config=configs/small.py:catch", "--launch=serial",
     f"--workdir={tmp_path}"]
  )
  assert train._run(train.describe(parsed), parsed, {}) == 0
  said = "Stopped before anything was learned. The same command goes on."
  assert said in capsys.readouterr().out


def test_other_run_in_the_work_directory(tmp_path):
  first = make_experiment(tmp_path)
  resume.prepare_workdir(first)
  with pytest.raises(UserError, match="of agent 'stacx'"):
    resume.prepare_workdir(make_experiment(tmp_path, agent="stac"))
  other = make_experiment(tmp_path, environment="gymnasium:CartPole-v1")
  with pytest.raises(UserError, match="of environment 'catch'"):
    resume.prepare_workdir(other)
  networks = acme_stac.make_networks(first.environment_spec, first.config)
  state = acme_stac.core.make_update(networks, first.config).init(
    jax.random.PRNGKey(0)
  )
  checkpointing.save(first.checkpoints, 3, state, first.to_json())
  larger = make_experiment(tmp_path, **{"stac.head_sizes": (300,)})
  with pytest.raises(UserError) as error:
    resume.prepare_workdir(larger)
  assert "256) in the checkpoint" in str(error.value)
  assert "--config.stac.head_sizes: [256] -> [300]" in str(error.value)


@pytest.mark.parametrize("log", [b"\xff\xfe\xa8", b"a,b\n1,\0\n"])
def test_a_damaged_log_costs_only_the_plots(tmp_path, capsys, log):
  (tmp_path / "logs").mkdir()
  (tmp_path / "logs" / "learner.csv").write_bytes(log)
  train._plot(make_experiment(tmp_path))
  assert "The plots could not be written" in capsys.readouterr().err


def test_a_run_that_is_done_keeps_the_record_of_its_settings(tmp_path):
  first = make_experiment(tmp_path)
  resume.prepare_workdir(first)
  networks = acme_stac.make_networks(first.environment_spec, first.config)
  state = acme_stac.core.make_update(networks, first.config).init(
    jax.random.PRNGKey(0)
  )
  state = state._replace(step=np.int32(3))
  checkpointing.save(first.checkpoints, 3, state, first.to_json())
  before = (tmp_path / "config.json").read_text()
  smaller = make_experiment(
    tmp_path, **{"num_environment_steps": 640, "stac.entropy_cost": 0.02}
  )
  assert smaller.config.num_updates < 3
  assert resume.prepare_workdir(smaller).changes
  assert (tmp_path / "config.json").read_text() == before


def test_what_a_checked_environment_started_ends_with_the_command(tmp_path):
  (tmp_path / "starter.py").write_text(
    "import pathlib, subprocess\n"
    "def make(seed):\n"
    "  process = subprocess.Popen(['sleep', '1000'])\n"
    f"  pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(process.pid))\n"
    "  raise RuntimeError('not today')\n"
  )
  result = subprocess.run(
    command(tmp_path / "run", config="configs/small.py:python:starter:make"),
    env={
      **environment(),
      "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
    },
    capture_output=True, text=True, timeout=300,
  )
  assert result.returncode == 2, result.stderr
  assert "not today" in result.stderr
  pid = int((tmp_path / "pid").read_text())

  def gone():
    try:
      # Nobody may be there to take note of its death.
      return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
      return True

  assert ending.wait(gone, 60)


def test_a_checkpoint_alone_refuses_another_agent(tmp_path):
  """Without config.json the checkpoint says whose run it is."""
  first = make_experiment(tmp_path)
  networks = acme_stac.make_networks(first.environment_spec, first.config)
  state = acme_stac.core.make_update(networks, first.config).init(
    jax.random.PRNGKey(0)
  )
  state = state._replace(step=np.int32(3))
  checkpointing.save(first.checkpoints, 3, state, first.to_json())
  with pytest.raises(UserError, match="of agent 'stacx'"):
    resume.prepare_workdir(make_experiment(tmp_path, agent="stac"))
  # The same arrays, with another meaning.
  other = make_experiment(tmp_path, **{
    "stac.metaparameter_range": "clip", "stac.metaparameter_init": 0.9,
  })
  with pytest.raises(UserError, match="metaparameter_range"):
    resume.prepare_workdir(other)
  assert not (tmp_path / "config.json").exists()
  assert resume.prepare_workdir(first)[1:] == (3, [])


def test_a_directory_in_use_is_left_as_it_is(tmp_path, monkeypatch):
  """A second command reads and writes nothing before it has the lock."""

  def describe(*arguments):
    argv = ["--config=configs/small.py:catch",
            f"--workdir={tmp_path}", *arguments]
    return train.describe(run_flags.parse(argv))

  first = describe()
  written = {path: path.stat() for path in tmp_path.rglob("*")}
  lock = workdir_lib.lock
  monkeypatch.setattr(workdir_lib, "lock", lambda place: lock(place, 0.0))
  with pytest.raises(UserError, match="Another run uses"):
    describe("--config.seed=7")
  assert {path: path.stat() for path in tmp_path.rglob("*")} == written

  def finish(place):
    """The first run ends while the second one waits."""
    networks = acme_stac.make_networks(
      first.experiment.environment_spec, first.experiment.config
    )
    state = acme_stac.core.make_update(networks, first.experiment.config).init(
      jax.random.PRNGKey(0)
    )
    checkpointing.save(
      first.experiment.checkpoints, 3,
      state._replace(step=np.int32(3)), first.experiment.to_json(),
    )
    first.lock.close()
    return lock(place)

  monkeypatch.setattr(workdir_lib, "lock", finish)
  assert describe().step == 3


@pytest.mark.parametrize("name", [
  ".lock", "config.json", "logs", "logs/learner.csv", "checkpoints",
])
def test_something_else_in_the_work_directory_is_one_error(tmp_path, name):
  path = tmp_path / name
  path.parent.mkdir(parents=True, exist_ok=True)
  if name in ("logs", "checkpoints"):
    path.touch()
  else:
    path.mkdir()
  argv = ["--config=configs/small.py:catch", f"--workdir={tmp_path}"]
  with pytest.raises(UserError, match=re.escape(str(path))):
    train.describe(run_flags.parse(argv))


@pytest.mark.parametrize("remove", ["all", "contents"])
def test_a_removed_work_directory_stops_the_run_and_is_written_again(
  tmp_path, monkeypatch, remove, capsys
):
  workdir = tmp_path / "run"
  monkeypatch.setattr(nodes, "_WORKDIR_SECONDS", 0.0)
  step = nodes.Learner.step

  def step_and_remove(learner):
    again = step(learner)
    if learner._learner.num_steps == 3:
      for path in workdir.iterdir():
        if path.is_dir():
          shutil.rmtree(path)
        elif remove == "all" or not path.name.startswith("."):
          path.unlink()
      if remove == "all":
        workdir.rmdir()
    return again

  monkeypatch.setattr(nodes.Learner, "step", step_and_remove)
  parsed = run_flags.parse(
    ["--config=configs/small.py:catch", "--launch=serial",
     "--config.stac.torso_sizes=(4,)", "--config.stac.head_sizes=(4,)",
     "--config.evaluation.episodes=0", f"--workdir={workdir}"]
  )
  run = train.describe(parsed)
  written = (workdir / "config.json").read_text()
  assert train._run(run, parsed, {}) == 1
  assert "was removed during training" in capsys.readouterr().err
  assert (workdir / "config.json").read_text() == written
  run.lock.close()
  monkeypatch.undo()
  resumed = train.describe(parsed)
  assert (resumed.step, resumed.changes) == (3, [])


@pytest.mark.parametrize("arguments,isolated", [
  ((), True),
  (("--launch=serial",), True),
  (("--launch=hosts",), False),
  (("--launch", "hosts"), False),
  (("--launch=hosts", "--launch=local_mp"), True),
  (("--noisolate_network",), False),
])
def test_which_runs_leave_the_network(monkeypatch, arguments, isolated):
  calls = []
  monkeypatch.setattr(
    machine, "isolate_network", lambda: calls.append(1) or True
  )
  train._isolate(run_flags.parse_flags(["--workdir=x", *arguments]))
  assert bool(calls) == isolated


def test_wrong_python(monkeypatch):
  monkeypatch.setattr(sys, "version_info", (3, 12, 1))
  with pytest.raises(UserError, match="Python 3.12.1.*make setup"):
    machine.check()


def test_missing_system_library(monkeypatch):
  from programs.run import machine

  def broken(name):
    raise ImportError("libfoo.so.1: cannot open shared object file")

  monkeypatch.setattr(machine.importlib, "import_module", broken)
  with pytest.raises(UserError, match="a system library is missing"):
    machine.check()
