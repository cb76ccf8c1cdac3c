"""Sweeps of tiny runs, with real processes."""

import collections
import csv
import os
import signal
import subprocess
import sys

import psutil
import pytest
from absl import flags as absl_flags

from programs import command_line, experiment, machine, sweep
from tests.programs.test_train import environment, wait_for

FLAGS = """[
  "--config=configs/small.py:catch", "--config.agent=stac", "--launch=serial",
  "--config.stac.torso_sizes=(8,)", "--config.stac.head_sizes=(8,)",
  "--config.evaluation.episodes=2", "--config.log_every_seconds=0.01",
  "--config.num_environment_steps=%d",
]"""


def write(path, **budgets):
  runs = ", ".join(f'"{n}": {FLAGS % b}' for n, b in budgets.items())
  path.write_text(f"def get_runs():\n  return {{{runs}}}\n")
  return str(path)


def command(file, workdir):
  return [
    sys.executable, "-m", "programs.sweep", file, f"--workdir={workdir}",
    "--parallel=2",
  ]


@pytest.mark.slow
def test_sweep_runs_what_is_missing_and_lists_what_failed(tmp_path):
  file = write(tmp_path / "s.py", good=3200, bad=-1)
  run = subprocess.run(
    command(file, tmp_path), capture_output=True, text=True, env=environment()
  )
  assert run.returncode == 1
  assert "Failed: bad" in run.stderr
  assert "1/2 runs done" in run.stdout
  log = (tmp_path / "bad" / "sweep.log").read_text()
  assert "num_environment_steps must be" in log
  with open(tmp_path / "summary.csv", newline="") as table:
    (row,) = csv.DictReader(table)
  assert row["run"] == "good"
  assert row["environment_steps"] == "3200"
  assert row["finite"] == "True"
  assert 0.0 < float(row["largest_change"]) < 0.1
  assert 0.9 < float(row["smallest_sigma"]) <= float(row["largest_sigma"]) < 1
  # What is done is not run again; with other flags it is not done.
  before = (tmp_path / "good" / "sweep.log").read_text()
  file = write(tmp_path / "s.py", good=3200)
  again = subprocess.run(
    command(file, tmp_path), capture_output=True, text=True, env=environment()
  )
  assert again.returncode == 0
  assert "1/1 runs done" in again.stdout
  assert (tmp_path / "good" / "sweep.log").read_text() == before
  runs = sweep.load_runs(write(tmp_path / "s.py", good=6400))
  assert not sweep.is_done(tmp_path / "good", runs["good"])


@pytest.mark.slow
def test_stopped_sweep_goes_on(tmp_path):
  file = write(tmp_path / "s.py", long=100_000_000)
  process = subprocess.Popen(
    command(file, tmp_path), stdout=subprocess.PIPE, text=True,
    env=environment(),
  )
  log = tmp_path / "long" / "logs" / "learner.csv"
  try:
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 5)
    (run,) = psutil.Process(process.pid).children()
    assert set(run.cpu_affinity()) == sweep.shares(2)[0]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
  finally:
    process.kill()
  assert "Stopped. The same command goes on." in output
  assert list((tmp_path / "long" / "checkpoints").iterdir())
  assert not os.path.exists(tmp_path / "long" / "finished.json")


def test_runs_have_cores_of_their_own(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 7})
  assert sweep.shares(1) == [{0, 1, 2, 5, 7}]
  assert sweep.shares(2) == [{0, 2, 7}, {1, 5}]
  assert sweep.shares(6) == [{0, 1, 2, 5, 7}] * 6


def test_files_that_are_no_sweeps(tmp_path):
  with pytest.raises(machine.UserError, match="configs/sweeps/agents.py"):
    sweep.load_runs("configs/sweeps/nothing.py")
  (tmp_path / "empty.py").write_text("")
  with pytest.raises(machine.UserError, match="no function get_runs"):
    sweep.load_runs(str(tmp_path / "empty.py"))


def test_shipped_sweeps_are_of_known_agents():
  import acme_stac

  agents = sweep.load_runs("configs/sweeps/agents.py")
  assert {f"cartpole/{agent}" for agent in acme_stac.AGENTS} <= set(agents)
  robustness = sweep.load_runs("configs/sweeps/robustness.py")
  assert len(robustness) == 2 * 6 * 2 * 5


def test_a_sweep_file_has_parts(tmp_path):
  path = tmp_path / "s.py"
  path.write_text("def get_runs(part='all'): return {part: ['--x']}")
  assert list(sweep.load_runs(str(path))) == ["all"]
  assert list(sweep.load_runs(f"{path}:some")) == ["some"]
  with pytest.raises(machine.UserError, match="agents, discount, .*, control"):
    sweep.load_runs("configs/sweeps/study.py:nothing")


def test_the_study_is_of_what_it_says(tmp_path):
  """One run of each task, agent and perturbation could be started."""
  study = sweep.load_runs("configs/sweeps/study.py")
  seeds = collections.defaultdict(set)
  for name in study:
    group, _, seed = name.rpartition("/")
    seeds[group].add(int(seed))
  cheap = {"CartPole-v1", "catch"}
  for group, found in seeds.items():
    assert found == set(range(5 if group.split("/")[0] in cheap else 3))
  checked = 0
  for group in seeds:
    # An environment is made for each.
    task, _, agent = group.partition("/right/")
    if task == "catch" or agent == "stac" or group.startswith("catch/"):
      flags = command_line.parse(
        ["x", f"--workdir={tmp_path}", *study[f"{group}/0"]],
        absl_flags.FlagValues(),
      )
      run = experiment.make_experiment(
        flags.config, flags.num_actors, flags.workdir
      )
      assert run.seed == 0 and run.config.variable_update_period == 4
      checked += 1
  assert checked > 20


@pytest.mark.parametrize("text,message", [
  ("import no_such_module", "raised ModuleNotFoundError"),
  ("def get_runs(:", "raised SyntaxError"),
  ("def get_runs(): return 1 / 0", "get_runs.. of .*ZeroDivisionError"),
  ("def get_runs(): return None", "must return names of runs"),
  ("def get_runs(): return {'a': 3}", "must return names of runs"),
])
def test_what_a_sweep_file_can_get_wrong(tmp_path, text, message):
  path = tmp_path / "s.py"
  path.write_text(text)
  with pytest.raises(machine.UserError, match=message):
    sweep.load_runs(str(path))
