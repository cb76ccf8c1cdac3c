"""The command itself: its arguments, and what it does to a directory."""

import os
import re
import shutil
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

import acme_stac
from acme_stac import checkpointing
from programs import train
from programs.launch import ending, serial, session
from programs.launch import flags as run_flags
from programs.nodes import checkpoints
from programs.nodes.failures import HopelessError
from programs.run import machine, resume
from programs.run import workdir as workdir_lib
from programs.run.errors import UserError
from tests.support import runs
from tests.support.runs import command, environment, make_experiment, run

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
    session.describe(run_flags.parse(argv))
  assert message in str(error.value)
  assert not (tmp_path / "run" / "logs" / "nodes").exists()


def test_errors_of_the_command(tmp_path):
  arguments, message = ERRORS[0]
  result = run(tmp_path / "run", *arguments)
  assert result.returncode == 2, result.stdout + result.stderr
  assert message in result.stderr
  assert "Traceback" not in result.stderr
  assert result.stderr.count("Error: ") == 1


def test_stopped_before_the_first_update(tmp_path, monkeypatch, capsys):
  def stop(*unused_args):
    raise ending.Interrupted(signal.SIGINT)

  monkeypatch.setattr(serial, "run", stop)
  assert runs.train(tmp_path, "--launch=serial") == 0
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
  session.report(make_experiment(tmp_path))
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
  runs.wait_until_gone(pid)


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
  for other in ("clip", "double"):
    experiment = make_experiment(tmp_path, **{
      "stac.metaparameter_range": other, "stac.metaparameter_init": 0.9,
    })
    with pytest.raises(UserError, match="metaparameter_range"):
      resume.prepare_workdir(experiment)
  assert not (tmp_path / "config.json").exists()
  assert resume.prepare_workdir(first)[1:] == (3, [], False)


def test_a_directory_in_use_is_left_as_it_is(tmp_path, monkeypatch):
  """A second command reads and writes nothing before it has the lock."""

  def describe(*arguments):
    argv = ["--config=configs/small.py:catch",
            f"--workdir={tmp_path}", *arguments]
    return session.describe(run_flags.parse(argv))

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
    session.describe(run_flags.parse(argv))


@pytest.mark.parametrize("remove", ["all", "contents", "replaced"])
def test_a_removed_work_directory_stops_the_run(
  tmp_path, remove, monkeypatch
):
  # Nothing is due but a look at the directory.
  monkeypatch.setattr(checkpoints, "_LOOK_SECONDS", 0.0)
  experiment = make_experiment(tmp_path / "run")
  prepared = resume.prepare_workdir(experiment)
  lock = workdir_lib.lock(experiment.workdir)
  learner = types.SimpleNamespace(num_steps=0, save=dict)
  saved = checkpoints.Checkpoints(prepared.experiment, learner, 600.0)
  learner.num_steps = 1
  saved.save_last()
  saved.save_if_due()
  assert checkpointing.list_checkpoints(experiment.checkpoints)
  for path in experiment.workdir.iterdir():
    if path.is_dir():
      shutil.rmtree(path)
    elif remove != "contents" or not path.name.startswith("."):
      path.unlink()
  if remove == "replaced":
    resume.prepare_workdir(experiment)
    workdir_lib.lock(experiment.workdir).close()
  learner.num_steps = 2
  for save in (saved.save_if_due, saved.save_last):
    with pytest.raises(HopelessError, match="was removed or replaced"):
      save()
  assert not checkpointing.list_checkpoints(experiment.checkpoints)
  lock.close()


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
