"""The command itself."""

import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.xm_launch.test_description import EXAMPLE, changed

ROOT = pathlib.Path(__file__).parents[2]


def launch(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "xm_launch", *arguments],
    capture_output=True,
    text=True,
    cwd=ROOT,
    timeout=300,
  )


def test_dry_run_checks_and_prints():
  result = launch(f"--config={EXAMPLE}", "--dry_run")
  assert result.returncode == 0, result.stderr
  golden = pathlib.Path(__file__).parent / "golden" / "pong.yaml"
  assert result.stdout == golden.read_text()


def test_help():
  result = launch("--help")
  assert result.returncode == 0
  assert "--dry_run" in result.stdout or "dry_run" in result.stdout


@pytest.mark.parametrize("arguments, message", [
  ([], "required: --config"),
  (["--config=x", "y"], "Unrecognized arguments: y"),
  (["--config=x"], "--config: x cannot be read (No such file"),
  (["--config=x", "--engine=slurm"], "invalid choice: 'slurm'"),
  (["--config=x", "--dryrun"], "Unknown flag --dryrun. Did you mean '--dry_"),
])
def test_mistakes(arguments, message):
  result = launch(*arguments)
  assert result.returncode == 2
  assert result.stdout == ""
  assert message in result.stderr
  assert "Traceback" not in result.stderr


def test_arguments_of_train_are_checked(tmp_path):
  flags = ["--config=configs/small.py:catch", "--config.agent=stacy"]
  data = changed("train", flags)
  path = tmp_path / "run.yaml"
  path.write_text(yaml.safe_dump(data))
  result = launch(f"--config={path}", "--dry_run")
  assert result.returncode == 2
  assert result.stdout == ""
  message = "train: --config.agent: Unknown agent: 'stacy'. Did you mean"
  assert message in result.stderr
  assert "Traceback" not in result.stderr
  assert launch(f"--config={path}", "--dry_run", "--nocheck").returncode == 0
