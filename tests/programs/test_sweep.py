"""Sweeps of tiny runs, with real processes."""

import collections
import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import psutil
import pytest

from acme_stac import environments, on_device
from programs import sweep
from programs.launch import ending, members
from programs.launch import flags as run_flags
from programs.run import machine, validation
from programs.run.errors import UserError
from tests.evaluation import test_summary
from tests.support.runs import environment, wait_for

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
  file = write(tmp_path / "s.py", good=1280, bad=-1)
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
  assert row["environment_steps"] == "1280"
  assert row["finite"] == row["finished"] == "True"
  assert 0.0 < float(row["largest_change"]) < 0.1
  assert 0.9 < float(row["smallest_sigma"]) <= float(row["largest_sigma"]) < 1
  # With other flags it is not done.
  runs = sweep.load_runs(write(tmp_path / "s.py", good=6400))
  assert not sweep.is_done(tmp_path / "good", runs["good"])
  # Finished runs are skipped; an interrupted sweep continues.
  before = (tmp_path / "good" / "sweep.log").read_text()
  file = write(tmp_path / "s.py", good=1280, long=100_000_000)
  process = subprocess.Popen(
    command(file, tmp_path), stdout=subprocess.PIPE, text=True,
    env=environment(),
  )
  log = tmp_path / "long" / "logs" / "learner.csv"
  try:
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 5)
    (child,) = psutil.Process(process.pid).children()
    assert set(child.cpu_affinity()) == sweep.shares(2)[0]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
  finally:
    process.kill()
  # A shell's loop must not take it for done.
  assert process.returncode == -signal.SIGINT
  assert "1/2 runs done" in output
  assert "Stopped. The same command continues." in output
  assert (tmp_path / "good" / "sweep.log").read_text() == before
  assert list((tmp_path / "long" / "checkpoints").iterdir())
  assert not os.path.exists(tmp_path / "long" / "finished.json")


def test_runs_have_cores_of_their_own(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5, 7})
  assert sweep.shares(1) == [{0, 1, 2, 5, 7}]
  assert sweep.shares(2) == [{0, 2, 7}, {1, 5}]
  assert sweep.shares(6) == [{0, 1, 2, 5, 7}] * 6


def test_runs_end_with_the_sweep(tmp_path, monkeypatch):
  program = tmp_path / "python"
  program.write_text(
    "#!/bin/sh\n"
    f'case $1 in -m) exec sleep 60;; *) exec {sys.executable} "$@";; esac\n'
  )
  program.chmod(0o700)
  monkeypatch.setattr(sys, "executable", str(program))
  (tmp_path / "run").mkdir()
  ours = sweep.Sweep({"run": []}, tmp_path)
  # A parent is the thread that started a process: its death is enough.
  core = max(os.sched_getaffinity(0))

  def start():
    ours._start("run", {core})
    pid = ours._running["run"][0].pid
    wait_for(lambda: psutil.Process(pid).name() == "sleep")
    assert psutil.Process(pid).cpu_affinity() == [core]

  thread = threading.Thread(target=start)
  with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    thread.start()
    thread.join()
  assert not [str(of.message) for of in warned if "fork" in str(of.message)]
  process, _ = ours._running["run"]
  try:
    assert process.wait(timeout=10) == -signal.SIGTERM
  finally:
    process.kill()


def make_run(directory, steps, budget=100):
  """Writes what a run that has made so many steps has written."""
  (directory / "logs").mkdir(parents=True, exist_ok=True)
  described = {
    "agent": "stac", "environment": "catch",
    "config": {"num_environment_steps": budget},
  }
  (directory / "config.json").write_text(json.dumps(described))
  log = f"learner_steps,environment_steps\r\n1,{steps}\r\n"
  (directory / "logs" / "learner.csv").write_text(log)


def test_share_of_a_run(tmp_path):
  assert sweep.share_made(tmp_path) == 0.0
  make_run(tmp_path, 25)
  log = tmp_path / "logs" / "learner.csv"
  found = []
  for more in ("", "2", ",50\r\n", "8,800\n"):
    with open(log, "a") as file:
      file.write(more)
    found.append(sweep.share_made(tmp_path))
  assert found == [0.25, 0.25, 0.5, 1.0]
  log.write_bytes(b"environment_steps\n")
  assert sweep.share_made(tmp_path) == 0.0
  make_run(tmp_path, 25)
  (tmp_path / "config.json").write_text('{"config": {"num_envi')
  assert sweep.share_made(tmp_path) == 0.0


def test_status_counts_what_runs_have_made(tmp_path, monkeypatch):
  now = 0.0
  monkeypatch.setattr(time, "monotonic", lambda: now)
  make_run(tmp_path / "a/0", 40)  # It was cut off.
  ours = sweep.Sweep({"a/0": [], "b/1": [], "c": []}, tmp_path)
  monkeypatch.setattr(ours, "_running", {"a/0": None, "b/1": None})
  assert ours.status() == ["0/3 runs done", "running: a/0 (40%), b/1"]
  now = 60.0
  make_run(tmp_path / "a/0", 70)
  # 0.3 of a run in a minute, and 2.3 runs are left.
  assert ours.status() == [
    "0/3 runs done", "about 8 minutes left", "running: a/0 (70%), b/1"
  ]
  ours._running.pop("a/0")
  make_run(tmp_path / "b/1", 50)
  # 0.8 of a run in a minute, and 1.8 runs are left.
  assert ours.status()[1:] == ["about 2 minutes left", "running: b/1 (50%)"]


def test_the_summary_is_of_logs_that_can_be_read(tmp_path, capsys):
  foreign = {"b/keys": b"x,y\n1,2\n"}
  names = ["a/0", "a/1", "a/cut_off", *foreign, "c/not_started"]
  for number, name in enumerate(names[:-1]):
    log = tmp_path / name / "logs" / "learner.csv"
    log.parent.mkdir(parents=True)
    test_summary.write(log, [test_summary.learner_row(1, 0.5, float(number))])
    if name in foreign:
      log.write_bytes(foreign[name])
    if name != "a/cut_off":
      (tmp_path / name / "finished.json").write_text('["--x"]')
  written = sweep.write_summary(dict.fromkeys(names, ["--x"]), tmp_path)
  assert [path.name for path in written] == [
    "summary.csv", "averages.csv", "learning_curves.png"
  ]
  errors = capsys.readouterr().err.splitlines()
  assert [line.split()[0] for line in errors] == list(foreign)
  assert "cannot be read: KeyError: 'learner_steps'" in errors[0]

  tables = []
  for path in written[:2]:
    with open(path, newline="") as table:
      tables.append(list(csv.DictReader(table)))
  summary, averages = tables
  assert [(row["run"], row["finished"]) for row in summary] == [
    ("a/0", "True"), ("a/1", "True"), ("a/cut_off", "False")
  ]
  (row,) = averages
  assert (row["group"], row["runs"], row["final_return"]) == ("a", "2", "0.5")


def test_runs_side_by_side_are_runs_of_the_tables(tmp_path):
  directory = tmp_path / "tuned"
  names = [f"tuned/discount=0.{d}/{seed}" for d in (8, 9) for seed in (2, 10)]
  for number, name in enumerate(names):
    make_run(tmp_path / name, 25 * number)
    log = tmp_path / name / "logs" / "learner.csv"
    test_summary.write(log, [test_summary.learner_row(1, 0.5, float(number))])
  found = sweep.members(directory)
  assert [str(path.relative_to(tmp_path)) for path in found] == names
  (directory / "finished.json").write_text('["--seeds=2"]')
  sweep.write_summary({"tuned": ["--seeds=2"]}, tmp_path)
  summary, averages = [
    list(csv.DictReader((tmp_path / name).read_text().splitlines()))
    for name in ("summary.csv", "averages.csv")
  ]
  assert [(row["run"], row["finished"]) for row in summary] == [
    (name, "True") for name in names
  ]
  assert [(row["group"], row["runs"]) for row in averages] == [
    ("tuned/discount=0.8", "2"), ("tuned/discount=0.9", "2")
  ]


def test_a_sweep_ends_when_its_minutes_are_over(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(sweep, "check_flags", lambda *_: None)
  write(tmp_path / "s.py", done=1280, begun=1280, waiting=1280)
  runs = sweep.load_runs(str(tmp_path / "s.py"))
  make_run(tmp_path / "done", 100)
  (tmp_path / "done" / "finished.json").write_text(json.dumps(runs["done"]))
  make_run(tmp_path / "begun", 40)
  started = []
  monkeypatch.setattr(sweep.Sweep, "_start", lambda *_: started.append(1))
  arguments = [str(tmp_path / "s.py"), f"--workdir={tmp_path}"]
  assert sweep.main([*arguments, "--minutes=1e-9"]) == 0
  assert not started
  assert (
    "Ended after 1e-09 minutes: 1 of 3 runs done, 47% of all steps. The same"
    " command continues."
  ) in capsys.readouterr().out
  for wrong in ("0", "-1", "nan"):
    with pytest.raises(UserError, match="--minutes must be more than 0"):
      sweep.main([*arguments, f"--minutes={wrong}"])


@pytest.mark.slow
def test_runs_side_by_side_save_their_checkpoints_when_the_minutes_are_over(
  tmp_path, monkeypatch
):
  runs = {"pair": [
    "--config=configs/small.py:catch", "--config.agent=impala",
    "--launch=on_device", "--seeds=2", "--config.stac.torso_sizes=(8,)",
    "--config.stac.head_sizes=(8,)", "--config.log_every_seconds=0.05",
    "--config.num_environment_steps=1000000000",
  ]}
  directory = tmp_path / "pair"
  directory.mkdir()
  ours = sweep.Sweep(runs, tmp_path)
  log = directory / "1" / "logs" / "learner.csv"

  def show(_):
    if log.exists() and log.read_text().count("\n") > 3:
      ours._started = float("-inf")

  monkeypatch.setattr(ours._progress, "show", show)
  monkeypatch.setattr(os, "environ", environment())
  with ending.StopRequest() as stop:
    ours.run(1, stop, seconds=600)
  assert ours.out_of_time and not ours.failed
  assert ours.summarise().startswith("0 of 1 run done")
  first, second = [
    [path.name for path in (directory / name / "checkpoints").iterdir()]
    for name in "01"
  ]
  assert first == second != []
  assert not sweep.is_done(directory, runs["pair"])


class Failed:
  """A process that has failed."""

  returncode = 1

  def poll(self):
    return self.returncode


def test_failures_are_listed_without_a_summary(tmp_path, monkeypatch, capsys):
  def start(self, name, cores):
    self._running[name] = Failed(), cores
    # Before the sweep begins it would be refused.
    (tmp_path / "summary.csv").mkdir()

  monkeypatch.setattr(sweep.Sweep, "_start", start)
  monkeypatch.setattr(machine, "check", lambda _: None)
  log = tmp_path / "bad" / "logs" / "learner.csv"
  log.parent.mkdir(parents=True)
  test_summary.write(log, [test_summary.learner_row(1, 0.5, 1.0)])
  file = write(tmp_path / "s.py", bad=1)
  assert sweep.main([file, f"--workdir={tmp_path}"]) == 1
  failed, summary = capsys.readouterr().err.splitlines()
  assert failed == "Failed: bad"
  assert summary.startswith("The summary could not be written: ")
  assert "summary.csv" in summary


@pytest.mark.parametrize("place", ["", "a/b"])
def test_directories_that_cannot_be_written(tmp_path, monkeypatch, place):
  monkeypatch.setattr(sweep.Sweep, "_start", lambda *_: pytest.fail())
  monkeypatch.setattr(machine, "check", lambda _: None)
  file = tmp_path / "s.py"
  file.write_text("def get_runs(): return {'x': [], 'a/b/c': []}")
  taken = tmp_path / "runs" / place
  taken.parent.mkdir(parents=True, exist_ok=True)
  taken.write_text("")
  with pytest.raises(
    UserError, match=f"{taken}.* cannot be written: .*(exists|directory)"
  ):
    sweep.main([str(file), f"--workdir={tmp_path / 'runs'}"])


def test_files_that_are_no_sweeps(tmp_path):
  with pytest.raises(UserError, match="configs/sweeps/agents.py"):
    sweep.load_runs("configs/sweeps/nothing.py")
  (tmp_path / "empty.py").write_text("")
  with pytest.raises(UserError, match="no function get_runs"):
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
  with pytest.raises(UserError, match="agents, discount, .*, control"):
    sweep.load_runs("configs/sweeps/study.py:nothing")


def test_the_study_is_of_what_it_says(tmp_path, monkeypatch):
  """One run of each task, agent and perturbation could be started."""
  # Stepping each environment for a second would test the environments.
  monkeypatch.setattr(environments, "check", lambda environment: None)
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
      flags = run_flags.parse(
        [f"--workdir={tmp_path}", *study[f"{group}/0"]]
      )
      run = validation.make_experiment(
        flags.config, flags.num_actors, flags.workdir
      )
      assert run.seed == 0 and run.config.variable_update_period == 4
      checked += 1
  assert checked > 20


def test_parts_of_the_study_of_minatar_can_be_started(tmp_path, monkeypatch):
  pytest.importorskip("gymnax")
  # Tests of the games do it.
  monkeypatch.setattr(on_device, "check", lambda environment: None)
  for part, agents, number in (
    ("study", 4, 16), ("small", 4, 3), ("search", 1, 48 * 2)
  ):
    runs = sweep.load_runs(f"configs/sweeps/minatar.py:{part}")
    # Every agent of a game comes before the next game.
    assert [name.split("/")[0] for name in runs] == [
      game for game in (
        "asterix", "breakout", "freeway", "seaquest", "space_invaders"
      ) for _ in range(agents)
    ]
    experiments = members_of(tmp_path, runs["breakout/impala"])
    assert len(experiments) == number
  ablations = sweep.load_runs("configs/sweeps/minatar.py:ablations")
  assert not set(ablations) & set(sweep.load_runs("configs/sweeps/minatar.py"))
  costs = {
    run.config.value_cost
    for run in members_of(
      tmp_path, ablations["breakout/value_cost/stacx"]
    )
  }
  assert costs == {0.15, 0.2, 0.3, 0.35}


def test_far_sighted_agents_can_be_started(tmp_path, monkeypatch):
  pytest.importorskip("gymnax")
  # Tests of the games do it.
  monkeypatch.setattr(on_device, "check", lambda environment: None)
  parts = {
    part: sweep.load_runs(f"configs/sweeps/far_sighted.py:{part}")
    for part in ("right", "wrong", "small", "long", "tasks")
  }
  assert len(parts["right"]) == 5 * 9 and len(parts["wrong"]) == 5 * 9 * 6
  assert not set(parts["right"]) & set(parts["wrong"])
  horizons = set()
  for value in (0.975, 0.999):
    name = f"breakout/discount={value}/stacx_bootstrap_4"
    (run, *_) = members_of(tmp_path, parts["wrong"][name])
    assert run.config.bootstrap_steps == 4
    horizons.add(round(1 / (1 - run.config.discount)))
  assert horizons == {200 // 5, 200 * 5}
  small = parts["small"]["breakout/entropy_cost=0.002/stacx_double"]
  members = members_of(tmp_path, small)
  assert len(members) == 3 and members[0].config.entropy_cost == 0.002
  horizon = parts["small"]["breakout/discount=0.999/impala"]
  assert members_of(tmp_path, horizon)[0].config.discount == 0.999
  (whole,) = members_of(tmp_path, parts["long"]["breakout/stacx/1"])
  assert whole.config.num_updates == 78_125 and whole.seed == 1
  assert len(parts["tasks"]) == 2 * 3 * 3


def members_of(tmp_path, flags):
  """Returns the runs side by side of a run of a sweep."""
  parsed = run_flags.parse([f"--workdir={tmp_path}", *flags])
  return members.make_experiments(parsed, parsed.num_actors)


@pytest.mark.parametrize("flags,message", [
  (["--confg=x"], "Run 'a/0': Unknown flag --confg. Did you mean '--config'"),
  (["--config.agent=stax"], "Run 'a/0': Unknown agent: 'stax'. Did you mean"),
  (["--config.num_environment_steps=many"], "Run 'a/0': .*many"),
  (["--workdir=elsewhere"], "Run 'a/0': a sweep gives each run its --workdir"),
])
def test_flags_are_checked_before_anything_starts(
  tmp_path, monkeypatch, flags, message
):
  monkeypatch.setattr(sweep.Sweep, "_start", lambda *_: pytest.fail())
  file = tmp_path / "s.py"
  runs = {"a/0": ["--config=configs/small.py:catch", *flags]}
  file.write_text(f"def get_runs(): return {runs}")
  with pytest.raises(UserError, match=message):
    sweep.main([str(file), f"--workdir={tmp_path / 'runs'}"])
  assert not (tmp_path / "runs").exists()


def test_a_sweep_needs_only_what_its_runs_need(tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(machine, "check", asked.append)
  config = "--config=configs/small.py:catch"
  modes = ("serial", "colocated", "local_mp")
  runs = {mode: [config, f"--launch={mode}"] for mode in modes}
  sweep.check_flags(runs, tmp_path)
  assert asked == [False, False, True]


def test_a_full_disk_fails_the_run_that_meets_it(tmp_path, capsys):
  # Logs that cannot be opened; the other one ends at once.
  runs = {"a": ["--unknown"], "b": ["--unknown"]}
  (tmp_path / "a" / "sweep.log").mkdir(parents=True)
  (tmp_path / "b").mkdir()
  unfinished = sweep.Sweep(runs, tmp_path)
  unfinished.run(1, False)
  assert unfinished.failed == ["a", "b"]
  said = capsys.readouterr().out
  assert "a failed, [Errno 21] Is a directory" in said
  assert "b failed, see " in said


def test_at_least_one_run_at_a_time(tmp_path):
  with pytest.raises(UserError, match="at least 1"):
    sweep.main(["x.py", f"--workdir={tmp_path}", "--parallel=0"])


@pytest.mark.parametrize("text,message", [
  ("import no_such_module", "raised ModuleNotFoundError"),
  ("def get_runs(:", "raised SyntaxError"),
  ("def get_runs(): return 1 / 0", "raised ZeroDivisionError"),
  ("def get_runs(): return None", "must return a dictionary of runs, got None"),
  ("def get_runs(): return {}", "must return a dictionary of runs"),
  ("def get_runs(): return {'a': '--x'}", "flags of 'a' must be a list"),
  ("def get_runs(): return {'a': [1]}", "flags of 'a' must be a list"),
  ("def get_runs(): return {'/a': []}", "'/a' must be a relative path"),
  ("def get_runs(): return {'../a': []}", "'../a' must be a relative path"),
])
def test_what_a_sweep_file_can_get_wrong(tmp_path, text, message):
  path = tmp_path / "s.py"
  path.write_text(text)
  with pytest.raises(UserError, match=message):
    sweep.load_runs(str(path))
