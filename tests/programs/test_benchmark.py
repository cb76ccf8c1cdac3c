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


@pytest.mark.parametrize("argument", ["--rounds=0", "--batch=0", "--torso=x"])
def test_bad_arguments(argument, capsys):
  with pytest.raises(SystemExit) as error:
    benchmark.main(["benchmark", "learner", argument])
  assert error.value.code == 2
  assert argument.split("=")[0].strip("-") in capsys.readouterr().err
