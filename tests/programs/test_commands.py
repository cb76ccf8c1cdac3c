import argparse
import importlib
import subprocess
import sys

import pytest

from acme_stac import STACConfig, environments
from acme_stac.presets import AGENTS
from programs import evaluate, export, report, sweep
from programs.benchmark import __main__ as benchmark
from programs.launch import flags as run_flags
from programs.run import arguments, experiment, validation
from programs.run.errors import UserError

# Each with a flag that is wrong, and what was meant.
COMMANDS = [
  (evaluate.main, ["--episode=3", "runs/x"], "--episodes"),
  (evaluate.main, ["runs/x", "--opt", "a=b"], "--option"),
  (report.main, ["runs", "--outptu=x"], "--output"),
  (export.main, ["runs/x", "--outp=x"], "--output"),
  (benchmark.main, ["soak", "--minute=3"], "--minutes"),
  (sweep.main, ["file.py", "--paralel=3"], "--parallel"),
  (benchmark.main, ["learner", "--round=3"], "--rounds"),
  (benchmark.main, ["lerner"], "learner"),
]


@pytest.mark.parametrize(("main", "argv", "meant"), COMMANDS)
def test_flags_are_written_out_and_near_matches_named(main, argv, meant):
  with pytest.raises(UserError, match=f"Did you mean '?{meant}"):
    main(argv)


@pytest.mark.parametrize("command", [
  "programs.train", "programs.evaluate", "programs.report", "programs.sweep",
  "programs.export", "programs.benchmark.__main__", "xm_launch.__main__",
  "acme_stac.doctor",
])
def test_help_shows_examples_line_by_line(command, capsys):
  with pytest.raises(SystemExit) as ended:
    importlib.import_module(command).main(["--help"])
  assert ended.value.code == 0
  said = capsys.readouterr()
  assert said.err == ""
  assert f"\n  python -m {command.removesuffix('.__main__')}" in said.out


def test_the_help_of_a_run_has_the_names_of_its_parts():
  result = subprocess.run(
    [sys.executable, "-m", "programs.train", "--help"],
    capture_output=True, text=True, timeout=100,
  )
  assert result.returncode == 0
  assert result.stderr == ""
  assert set(AGENTS) <= set(result.stdout.replace(",", " ").split())
  assert "control_pixels:DOMAIN/TASK" in result.stdout
  assert " \\\n    --config.agent=stacx" in result.stdout


def test_help_has_every_kind_of_environment():
  with pytest.raises(ValueError, match="Known: (.*)") as error:
    environments.make("nothing")
  known = str(error.value).partition("Known: ")[2].rstrip(".").split(", ")
  names = [form.partition(":")[0] for form in environments.NAME_FORMS]
  assert names == known


@pytest.mark.parametrize(("text", "number"), [
  ("1000000", 10**6), ("1_000_000", 10**6), ("1e6", 10**6), ("1E+6", 10**6),
  ("2.5e3", 2500), ("-3", -3), ("10.0", 10), ("1e15", 10**15), ("0x10", 16),
  ("9007199254740993e0", 9007199254740993),
])
def test_whole_numbers_may_be_written_as_floats(text, number):
  assert arguments.whole_number(text) == number
  parser = arguments.Parser("x", "x")
  parser.add_argument("--seed", type=int)
  assert parser.parse_args([f"--seed={text}"]) == argparse.Namespace(
    seed=number
  )


@pytest.mark.parametrize(
  "text", ["1.5", "1e-1", "15e-1", "ten", "", "nan", "1e999999999"]
)
def test_other_numbers_are_refused_with_words(text):
  with pytest.raises(ValueError, match="must be a whole number, such as"):
    arguments.whole_number(text)


def parse(*argv):
  return run_flags.parse(["--workdir=runs/x", *argv])


def test_every_integer_of_a_run_may_be_written_as_a_float():
  parsed = parse(
    "--config=configs/small.py:catch", "--num_actors=2e0",
    "--config.num_environment_steps=1e6", "--config.stac.batch_size=1_6",
    "--config.evaluation.every_steps=2e4",
    "--config.environment_options.rows=1e1",
  )
  assert parsed.num_actors == 2
  assert parsed.config.num_environment_steps == 10**6
  assert parsed.config.stac.batch_size == 16
  assert parsed.config.evaluation.every_steps == 20000
  assert parsed.config.environment_options.rows == 10
  with pytest.raises(UserError, match="num_environment_steps=1.5: must be a"):
    parse("--config.num_environment_steps=1.5")


def make_anything(seed, size=3, **options):
  made.append({"size": size, **options})
  return environments.make("catch", seed)


made = []


@pytest.mark.parametrize(("argv", "name", "value"), [
  (["--config.environment_options.size=5"], "size", 5),
  (["--config.environment_options.speed=5.0"], "speed", 5.0),
  (["--config.environment_options.speed", "1e3"], "speed", 1e3),
  (["--config.environment_options.word=fast"], "word", "fast"),
  (["--config.environment_options.on=true"], "on", True),
  (["--config.environment_options.sizes=[1, 2]"], "sizes", [1, 2]),
])
def test_options_without_a_type_get_that_of_their_value(argv, name, value):
  parsed = parse(
    f"--config=configs/small.py:python:{__name__}:make_anything", *argv
  )
  made.clear()
  run = validation.make_experiment(parsed.config, 1, "runs/x")
  assert run.environment_options == {name: value}
  assert type(run.environment_options[name]) is type(value)
  assert made[0][name] == value
  # The same text means the same to evaluate.
  text = argv[-1].rpartition("=")[2]
  assert arguments.option_value(text, None) == value


def test_options_of_gymnasium_reach_the_environment():
  parsed = parse(
    "--config=configs/small.py:gymnasium:Pendulum-v1",
    "--config.environment_options.g=5.0",
  )
  assert parsed.config.environment_options.g == 5.0
  environments.make(
    "gymnasium:Pendulum-v1", **parsed.config.environment_options
  )


def test_options_that_do_not_exist_are_refused_with_near_matches():
  with pytest.raises(UserError, match="^--config.environment_options.*'rows'"):
    parse(
      "--config=configs/small.py:catch", "--config.environment_options.rowz=5"
    )


def leaves(node, path):
  if isinstance(node, dict):
    return [x for k, v in node.items() for x in leaves(v, f"{path}.{k}")]
  return [path]


def test_every_field_of_a_run_is_named_by_its_flag():
  config = parse("--config=configs/small.py:catch").config
  run = validation.make_experiment(config, 1, "runs/x")
  known = set(leaves(config.to_dict(), "--config")) | {"--num_actors"}
  for name, value in run.to_json().items():
    for path in leaves(value, name) if name == "config" else [name]:
      flag = experiment.flag_of(path)
      if name in ("environment_spec", "environment_options"):
        continue
      assert flag in known, (path, flag)
  assert experiment.flag_of("config.entropy_cost") == (
    "--config.stac.entropy_cost"
  )
  assert experiment.flag_of("environment_options.rows") == (
    "--config.environment_options.rows"
  )


@pytest.mark.parametrize("flag", [
  "--config.stac.entropy_cost=-1", "--config.stac.head_sizes=(0,)",
  "--config.stac.torso=none", "--config.stac.self_tuned=('gamma',)",
  "--config.stac.trajectory_overlap=20", "--config.num_environment_steps=0",
  "--config.evaluation.episodes=-1", "--config.seed=-1",
  "--config.agent=nobody", "--config.environments_per_actor=7",
])
def test_errors_of_a_configuration_begin_with_the_flag(flag):
  parsed = parse("--config=configs/small.py:catch", flag)
  with pytest.raises(UserError) as error:
    validation.make_experiment(parsed.config, 1, "runs/x")
  assert str(error.value).startswith(flag.partition("=")[0])


def test_in_python_errors_name_the_field():
  with pytest.raises(ValueError, match="^entropy_cost must be"):
    STACConfig(entropy_cost=-1.0)
