import argparse
import json
import sys
from typing import NamedTuple

import jax
import pytest

from programs.benchmark import __main__ as benchmark
from programs.benchmark import environments, measuring, parts, peaks, peers
from programs.benchmark.peers import contenders
from programs.launch import flags as run_flags
from programs.run.errors import UserError


def measure(tmp_path, *arguments):
  """Returns the exit code of a benchmark and the figures that it wrote."""
  output = tmp_path / "figures.json"
  code = benchmark.main([*arguments, f"--output={output}"])
  return code, json.loads(output.read_text())


def test_learner(tmp_path, capsys):
  code, result = measure(
    tmp_path, "learner", "--agents", "stac", "--networks", "mlp",
    "--batch", "2", "3", "--length=3", "--rounds=2", "--seconds=0.01",
  )
  assert code == 0
  assert [(row["batch"], row["agent"]) for row in result["rows"]] == [
    (batch, agent) for batch in (2, 3) for agent in ("impala", "stac")
  ]
  impala, stac, *_ = result["rows"]
  assert impala["time_ratio"] == impala["memory_ratio"] == 1.0
  assert stac["flops_ratio"] > 1.5
  assert stac["milliseconds"] > 0
  assert result["peak_gigaflops"] > 0
  assert capsys.readouterr().out.count("\n") == 2 + 4


def test_learner_of_several_heads(tmp_path):
  code, result = measure(
    tmp_path, "learner", "--agents", "impala_aux", "--batch=2", "--length=3",
    "--heads=4", "--rounds=1", "--seconds=0.01",
  )
  assert code == 0
  assert [(row["agent"], row["heads"]) for row in result["rows"]] == [
    ("impala", 1), ("impala_aux", 4)
  ]


def test_learner_on_several_devices(tmp_path):
  code, result = measure(
    tmp_path, "learner", "--agents", "impala", "--networks", "mlp_lstm",
    "--batch=2", "--length=3", "--devices", "1", "4", "--rounds=1",
    "--seconds=0.01",
  )
  assert code == 0
  one, four = result["rows"]
  assert (one["devices"], four["devices"]) == (1, 4)
  # Four times as many steps to each update.
  assert four["steps_per_second"] * four["milliseconds"] == pytest.approx(
    4 * one["steps_per_second"] * one["milliseconds"]
  )
  # The compiler counts an LSTM's first time step alone.
  assert one["gigaflops"] is None


def test_on_device(tmp_path, capsys):
  code, result = measure(
    tmp_path, "on_device", "--cases=catch", "--agents=impala", "--seeds=2",
    "--batch=2", "--length=3", "--updates=1", "--rounds=1", "--seconds=0.01",
  )
  assert code == 0
  (row,) = result["rows"]
  # Two seeds of 2 × 3 steps.
  assert row["steps_per_second"] * row["loop_milliseconds"] == pytest.approx(
    12_000
  )
  for part in ("update", "inference", "environment"):
    assert row[f"{part}_milliseconds"] > 0
  assert "| catch | `impala` | 2 |" in capsys.readouterr().out
  with pytest.raises(UserError, match="'bracout'. Did you mean 'breakout'"):
    benchmark.main(["on_device", "--cases=bracout"])


def test_more_devices_than_there_are():
  with pytest.raises(UserError, match="xla_force_host_platform_device_count"):
    benchmark.main(["learner", "--devices=64"])


def test_actor(tmp_path, capsys):
  code, result = measure(
    tmp_path, "actor", "--cases", "cartpole", "--batch", "2",
    "--seconds=0.05",
  )
  assert code == 0
  (row,) = result["rows"]
  parts = ("environment", "inference", "both", "writing", "reading")
  assert all(row[f"{part}_seconds"] > 0 for part in parts)
  # Both at once take longer than either.
  assert row["both_seconds"] > row["environment_seconds"]
  assert capsys.readouterr().out.count("\n") == 2 + 1


def test_pipeline(tmp_path, capsys):
  code, result = measure(
    tmp_path, "pipeline", "--cases", "cartpole", "--agents", "impala",
    "--warm_up=1", "--seconds=4",
  )
  printed = capsys.readouterr()
  assert code == 0, printed
  local_mp, serial = result["rows"]
  for row in (local_mp, serial):
    assert row["steps_per_second"] > 0
    assert 0 < row["efficiency"] < 1.5
  assert {"learner", "actor", "replay", "counter", "variables"} <= set(
    local_mp["cpu"]
  )
  assert set(serial["cpu"]) == {"launcher"}
  # JAX and TensorFlow are in each of them.
  assert local_mp["megabytes"]["actor"] > 100
  # An observation of 4 floats, twice, and what belongs to it.
  assert 60 < local_mp["bytes_sent_per_step"] < 6000
  assert printed.out.count("\n") == 2 + 2


def test_peers_are_compared():
  def curve(rate, returns, seconds=20):
    return [
      contenders.Point(float(second), rate * second, returns * second)
      for second in range(seconds)
    ]

  rows = peers.compare(
    {
      "impala": [curve(100, 2.0), curve(120, 4.0)],
      "acme": [curve(10, 1.0), curve(20, 1.0)],
      "rllib": [curve(40, 1.0, seconds=30)],
      "sample_factory": [],
    },
    {"sample_factory": "It ended."},
    warm_up=5.0,
  )
  impala, acme, rllib, broken = rows
  assert impala["steps_per_second"] == 110
  assert (impala["slowest"], impala["fastest"]) == (100, 120)
  assert impala["ratio_to_fastest_peer"] == 110 / 40
  assert acme["ratio_to_fastest_peer"] == 15 / 40
  assert (impala["rounds"], rllib["rounds"]) == (2, 1)
  # The slowest run ended at 190 steps, the shortest after 19 s.
  assert impala["return_at_equal_steps"] == (2.0 * 2 + 4.0 * 2) / 2
  # Acme's second run was there after 10 s.
  assert acme["return_at_equal_steps"] == (19 + 10) / 2
  assert rllib["return_at_equal_time"] == 19
  assert broken == {"contender": "sample_factory", "error": "It ended."}
  table = peers.table({"rows": rows}).splitlines()
  assert table[4] == "| rllib | 1 | 40 (40 to 40) | 1.00 | 5 | 19 |"
  assert table[-1] == "| sample_factory | It ended. |  |  |  |  |"
  (axes,) = peers.plot({"rows": rows}).axes
  names = [label.get_text() for label in axes.get_yticklabels()]
  assert names == ["acme", "rllib", "impala"]


def test_peer_of_the_same_packages(tmp_path, capsys, monkeypatch):
  # Acme would spread its batch over the devices that conftest makes.
  monkeypatch.delenv("XLA_FLAGS")
  code, result = measure(
    tmp_path, "peers", "--contenders", "acme", "--rounds=1",
    "--warm_up=0.1", "--seconds=1",
  )
  printed = capsys.readouterr()
  assert code == 0, printed
  (acme,) = result["rows"]
  assert acme["steps_per_second"] > 0
  assert acme["ratio_to_fastest_peer"] == 1.0


def test_this_project_among_its_peers(tmp_path):
  contender = contenders.make("pong_shallow", None, None)["stacx"]
  log = tmp_path / "logs" / "learner.csv"
  assert contender.read(tmp_path) is None
  log.parent.mkdir()
  log.write_text("learner_steps,environment_steps,episode_return\n1,640,nan\n")
  assert contender.read(tmp_path) == (640, None)
  with open(log, "a") as file:
    file.write("2,1280,21.5\n3,19")
  assert contender.read(tmp_path) == (1280, 21.5)
  # The flags are known to programs.train, and give the peers' network.
  python, *module = contender.command[:3]
  assert (python, module) == (sys.executable, ["-m", "programs.train"])
  config = run_flags.parse(
    [*contender.command[3:], f"{contender.flag}={tmp_path}"]
  ).config
  assert (config.agent, config.stac.head_sizes) == ("stacx", ())
  assert config.stac.torso == "shallow"


def test_unknown_peer():
  with pytest.raises(UserError, match="need --sample_factory and --rllib"):
    benchmark.main(["peers", "--contenders", "rllib"])


def test_environments(tmp_path, capsys):
  names = ["catch", "control:cartpole/swingup", "atari:pong", "atari:pongg"]
  code, result = measure(
    tmp_path, "environments", "--names", *names, "--batch=2", "--steps=5",
  )
  # One of them could not be made, and the others were measured.
  assert code == 1
  *good, bad = result["rows"]
  assert [row["environment"] for row in good] == names[:3]
  assert all(row["one"] > 0 and row["batch"] > 0 for row in good)
  assert "Did you mean 'pong'" in bad["error"]
  assert capsys.readouterr().out.count("\n") == 2 + 4


def test_device(tmp_path, capsys, monkeypatch):
  # Programs would compile for all devices that conftest makes.
  monkeypatch.delenv("XLA_FLAGS")
  code, result = measure(
    tmp_path, "device", "--tiny", "--seconds_per_row=2",
    "--start_seconds=500", "--budget=2000",
  )
  printed = capsys.readouterr().out
  assert code == 0, printed
  assert result["skipped"] == []
  assert result["device"]["platform"] == "cpu"
  rows = {
    part: [row for row in result["rows"] if row["part"] == part]
    for part in ("pooling", "learner", "emulator", "colocated")
  }
  assert all(row["gradient_milliseconds"] > 0 for row in rows["pooling"])
  assert [row["agent"] for row in rows["learner"]] == ["stacx", "impala"]
  assert all(0 < row["share_of_peak"] < 2 for row in rows["learner"])
  assert all(row["frames_per_second"] > 0 for row in rows["emulator"])
  (program,) = rows["colocated"]
  assert program["frames_per_second"] > 0
  assert program["first_update_seconds"] > 0
  assert 0 <= program["learner_waits"] <= 1
  assert printed.count("\nlearner: ") == 2  # As soon as each was measured.
  assert printed.count("|---") == sum(
    len(parts.PARTS[part].columns) for part in rows
  )


def test_device_without_time(tmp_path, capsys):
  code, result = measure(
    tmp_path, "device", "--tiny", "--only=emulator", "--budget=0.01"
  )
  assert code == 0
  assert result["rows"] == []
  assert [row["part"] for row in result["skipped"]] == ["emulator"] * 2
  assert "for want of time" in capsys.readouterr().out
  with pytest.raises(UserError, match="--only has"):
    benchmark.main(["device", "--only=pong"])


def test_figures_that_are_unknown_are_null(monkeypatch):
  class Update(NamedTuple):
    flops = None
    memory_bytes = 1

    def time(self, calls):
      return 0.1

  monkeypatch.setattr(parts, "_make_update", lambda case: Update())
  monkeypatch.setattr(peaks, "peak", lambda dtype: peaks.Peak(1.0, "measured"))
  case = {"torso": "deep", "agent": "stacx", "dtype": "float32", "batch": 2,
          "length": 3}
  part = parts.PARTS["learner"]
  options = argparse.Namespace(seconds_per_row=0.1)
  rows = list(part.measure([case], options, deadline=float("inf")))
  assert rows[0]["share_of_peak"] is None
  assert "| 100.00 | 240 |  |  | 0 |" in measuring.table(rows, part.columns)
  written = measuring.to_json({"rows": rows, "waits": [{"mean": float("nan")}]})
  assert json.loads(written)["waits"] == [{"mean": None}]
  assert "NaN" not in written


def test_peaks_of_known_devices(monkeypatch):
  class Device(NamedTuple):
    device_kind: str

  for kind, dtype, tera in (
    ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
    ("NVIDIA H100 PCIe", "float32", 378),
    ("NVIDIA A100-SXM4-40GB", "float32", 156),
    ("NVIDIA L4", "bfloat16", 121),
    ("Tesla T4", "float32", 8.1),
  ):
    monkeypatch.setattr(jax, "devices", lambda kind=kind: [Device(kind)])
    assert peaks.peak(dtype) == (tera * 1e12, "data sheet")
  monkeypatch.setattr(peaks, "matrix_product_rate", lambda dtype: 1.0)
  # It has none in hardware.
  assert peaks.peak("bfloat16") == (1.0, "measured")


def test_all_environments():
  names = environments.all_environments()
  assert len(names) == len(set(names)) == 2 + 57 + 2 * 51 + 9 * 4


def test_steady_cost_leaves_out_the_first_calls():
  calls = []
  cost = measuring.steady_cost(lambda: calls.append(0), 0.01)
  assert 0 < cost.seconds < 0.001
  assert len(calls) > 10


@pytest.mark.parametrize(
  "argument", ["--rounds=0", "--batch=0", "--networks=x"]
)
def test_bad_arguments(argument):
  with pytest.raises(UserError, match=argument.partition("=")[0]):
    benchmark.main(["learner", argument])


@pytest.mark.parametrize(
  "arguments,message",
  [
    (["learner", "--output=/nowhere/a.json"], "--output cannot be written"),
    (["peers", "--plot=/nowhere/a.png"], "--plot cannot be written"),
    (["learner", "--heads=4", "--agents", "stac"], "--heads is for agents"),
    (["peers", "--rllib=/nowhere/python"], "no interpreter '/nowhere/python'"),
  ],
)
def test_errors_before_long_work(arguments, message):
  with pytest.raises(UserError, match=message):
    benchmark.main([*arguments])
