import json

import pytest

from programs import benchmark


def test_learner_benchmark(tmp_path, capsys):
  output = tmp_path / "learner.json"
  agents = ["stac", "metagradient_impala"]
  code = benchmark.main([
    "benchmark", "learner", "--agents", *agents, "--torso=mlp",
    "--batch=2", "--length=3", "--rounds=2", "--seconds=0.01",
    f"--output={output}",
  ])
  assert code == 0
  result = json.loads(output.read_text())
  assert [row["agent"] for row in result["rows"]] == ["impala", *agents]
  impala, stac, *_ = result["rows"]
  assert impala["time_ratio"] == impala["memory_ratio"] == 1.0
  assert stac["flops_ratio"] > 1.5
  assert stac["milliseconds"] > 0
  assert capsys.readouterr().out.count("\n") == 2 + 3


def test_environments_benchmark(tmp_path, capsys):
  output = tmp_path / "environments.json"
  names = ["catch", "control:cartpole/swingup", "atari:pong", "atari:pongg"]
  code = benchmark.main([
    "benchmark", "environments", "--names", *names, "--batch=2", "--steps=5",
    f"--output={output}",
  ])
  # One of them could not be made, and the others were measured.
  assert code == 1
  *good, bad = json.loads(output.read_text())["rows"]
  assert [row["environment"] for row in good] == names[:3]
  assert all(row["one"] > 0 and row["batch"] > 0 for row in good)
  assert "Did you mean 'pong'" in bad["error"]
  assert capsys.readouterr().out.count("\n") == 2 + 4


def test_all_environments():
  names = benchmark.all_environments()
  assert len(names) == len(set(names)) == 2 + 57 + 2 * 51 + 9 * 4


@pytest.mark.parametrize("argument", ["--rounds=0", "--batch=0", "--torso=x"])
def test_bad_arguments(argument, capsys):
  with pytest.raises(SystemExit) as error:
    benchmark.main(["benchmark", "learner", argument])
  assert error.value.code == 2
  assert argument.split("=")[0].strip("-") in capsys.readouterr().err
