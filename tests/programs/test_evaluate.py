import csv
import json
import re
import resource
import subprocess
import sys

import cv2
import dm_env
import numpy as np
import pytest
from dm_env import specs
from PIL import Image, ImageSequence

import acme_stac
from acme_stac import environment_loop, environments, trained_policy
from acme_stac.evaluation import play as play_lib
from acme_stac.evaluation import video
from acme_stac.evaluation.statistics import mean_interval
from programs import evaluate
from programs.run.errors import UserError
from tests import test_trained_policy
from tests.programs import test_report
from tests.support import helpers, runs

HERE = "python:tests.programs.test_evaluate"


class Walk(dm_env.Environment):
  """A random walk that actions push, with returns far above 1.

  It ends where it has gone far, or by a limit.
  """

  def __init__(self, seed: int, limit: int = 12, fault: str = ""):
    self._rng = np.random.default_rng(seed)
    self._limit = limit
    self._fault = fault

  def reset(self):
    self._place = self._rng.normal(size=4).astype(np.float32)
    self._time = 0
    return dm_env.restart(self._place)

  def step(self, action):
    if self._time is None:
      return self.reset()
    self._time += 1
    push = self._rng.normal(size=4) + 0.7 * (int(action) - 1)
    self._place = (self._place + push).astype(np.float32)
    reward = float(100 * self._place[0])
    if self._fault == "nan" and self._time == 3:
      reward = float("nan")
    if self._fault == "raise" and self._time == 3:
      raise RuntimeError("the motor is hot")
    ended = np.abs(self._place).max() > 7
    if ended or self._time == self._limit:
      self._time = None
      end = dm_env.termination if ended else dm_env.truncation
      return end(reward, self._place)
    return dm_env.transition(reward, self._place)

  def observation_spec(self):
    return specs.Array((4,), np.float32)

  def action_spec(self):
    return specs.DiscreteArray(3)


class Drawn(Walk):
  """Draws how far it is: 7 × 9 pixels."""

  def render(self):
    picture = np.zeros((7, 9, 3), np.uint8)
    time = self._limit if self._time is None else self._time
    picture[0, 0] = 10 * time
    return picture


def make_run(path, environment, config=None, **options):
  """Writes a work directory with a policy that was never trained."""
  batch = environments.make_batched(environment, 1, 0, **options)
  spec = environments.environment_spec(batch)
  batch.close()
  config = config or helpers.small_config()
  test_trained_policy.save(path, spec, config, {
    "environment": environment, "environment_options": options,
  })
  return path


def rows(folder):
  with open(folder / "episodes.csv", newline="") as file:
    return [
      {name: float(value) for name, value in row.items()}
      for row in csv.DictReader(file)
    ]


def results(folder):
  return json.loads((folder / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
  # A core whose state must begin anew with every episode.
  return make_run(
    tmp_path_factory.mktemp("walk"), f"{HERE}:Walk",
    helpers.small_config(lstm_size=8), limit=10,
  )


def test_episodes_are_those_of_a_plain_loop(
  walk, tmp_path, capsys, monkeypatch
):
  begins = []
  act = trained_policy.TrainedPolicy.__call__

  def spy(policy, observation, state):
    begins.append(state.begins.copy())
    return act(policy, observation, state)

  monkeypatch.setattr(trained_policy.TrainedPolicy, "__call__", spy)
  assert evaluate.main([
    str(walk), "--episodes=12", "--environments=4", "--seed=5", "--greedy",
    f"--output={tmp_path}",
  ]) == 0
  monkeypatch.undo()
  policy = acme_stac.load_policy(walk, greedy=True)
  expected = []
  for member in range(4):
    environment = Walk(5 + member, limit=10)
    for episode in range(3):
      state = policy.initial_state()
      timestep = environment.reset()
      rewards = []
      while not timestep.last():
        timestep = environment.step(policy(timestep.observation, state))
        rewards.append(timestep.reward)
      expected.append([
        member, episode, sum(rewards), len(rewards), timestep.discount
      ])
  assert len({length for *_, length, _ in expected}) > 2
  assert {truncated for *_, truncated in expected} == {0.0, 1.0}
  found = [list(row.values()) for row in rows(tmp_path)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert np.abs(np.array(found)[:, 2]).max() > 100
  # An episode of n actions shows n + 1 observations before the next begins.
  for member in range(4):
    lengths = [row[3] for row in expected if row[0] == member]
    starts = np.cumsum([0, *(np.array(lengths) + 1)])
    found = np.flatnonzero([row[member] for row in begins])
    assert found[:3].tolist() == starts[:3].tolist()
  printed = capsys.readouterr().out
  assert "12/12 episodes" in printed and "steps/s" in printed


def test_seeds_and_greed(walk, tmp_path):
  def play(*arguments):
    assert evaluate.main([
      str(walk), "--episodes=8", f"--output={tmp_path}", *arguments
    ]) == 0
    return (tmp_path / "episodes.csv").read_text(), results(tmp_path)

  first, described = play("--seed=1")
  assert play("--seed=1") == (first, described)
  other, greedy = play("--seed=2"), play("--seed=1", "--greedy")
  assert len({first, other[0], greedy[0]}) == 3
  play(f"--seed={2**31 - 8}")  # Eight environments have this one and the next.
  assert (described["greedy"], greedy[1]["greedy"]) == (False, True)

  policy = acme_stac.load_policy(walk)

  def samples(seed):
    """Of the policy alone."""
    environment = environments.make_batched(Walk, 4, seed=0, limit=10)
    return play_lib.play(environment, policy, 8, seed)

  assert samples(1) == samples(1) != samples(2)


def test_statistics_are_of_the_rows(walk):
  assert evaluate.main([str(walk), "--episodes=30"]) == 0
  # The work directory's own folder.
  found, described = rows(walk / "evaluation"), results(walk / "evaluation")
  returns = np.array([row["return"] for row in found])
  lengths = np.array([row["length"] for row in found])
  assert len(found) == 30 and len({row["member"] for row in found}) == 15
  interval = mean_interval(returns)
  assert returns.min() <= interval.low < interval.high <= returns.max()
  expected = {
    "return_mean": returns.mean(),
    "return_mean_low": interval.low,
    "return_mean_high": interval.high,
    "return_std": np.std(returns, ddof=1),
    "return_median": np.median(returns),
    "return_min": returns.min(),
    "return_max": returns.max(),
    "length_mean": lengths.mean(),
    "length_min": lengths.min(),
    "length_max": lengths.max(),
    "truncated_share": np.mean([row["truncated"] for row in found]),
  }
  assert described["statistics"] == pytest.approx(expected)
  assert described["environment"] == f"{HERE}:Walk"
  assert described["environment_options"] == {"limit": 10}
  assert described["environment_steps"] == 1200
  assert described["checkpoint"] == "checkpoints/checkpoint_000000007.npz"
  assert described["versions"]["jax"]
  assert list(described["metaparameters"]) == list(
    acme_stac.load_policy(walk).config.self_tuned
  )


def test_scales():
  episodes = [
    environment_loop.Episode(0, 300.0, 1000, True),
    environment_loop.Episode(1, 500.0, 1000, True),
  ]
  found = play_lib.statistics("rwrl:walker/walk/easy", episodes)
  assert found["share_of_1000"] == 0.4
  assert "human_normalised_score" not in found
  found = play_lib.statistics("atari:MsPacman", episodes)
  assert found["human_normalised_score"] == pytest.approx(
    (400.0 - 307.3) / (6951.6 - 307.3)
  )
  assert "share_of_1000" not in found
  single = play_lib.statistics("catch", episodes[:1])
  assert single["return_std"] is single["return_mean_low"] is None
  assert "share_of_1000" not in single


def test_atari(tmp_path, capsys):
  """Points are not clipped, and a protocol keeps the policy's actions."""
  run = make_run(
    tmp_path, "atari:qbert",
    helpers.small_config(torso="shallow", torso_sizes=(4,)),
    max_noops=3, max_frames_per_episode=1000,
  )
  play = [str(run), "--episodes=4"]
  assert evaluate.main(play) == 0
  described = results(tmp_path / "evaluation")
  assert described["environment_options"]["max_noops"] == 3
  assert described["remarks"] == [] and described["action_repeat"] == 4
  returns = [row["return"] for row in rows(tmp_path / "evaluation")]
  assert max(returns) >= 25 and not any(np.mod(returns, 25))
  assert "human-normalised score: " in capsys.readouterr().out

  assert evaluate.main([
    *play, "--protocol=machado", "--option", "max_frames_per_episode=400"
  ]) == 0
  described = results(tmp_path / "evaluation")
  assert described["environment_options"] == {
    "protocol": "machado", "full_action_set": False,
    "max_frames_per_episode": 400,
  }
  (remark,) = described["remarks"]
  assert "has 6 actions, so full_action_set=False" in remark
  assert remark in capsys.readouterr().out
  assert {row["length"] for row in rows(tmp_path / "evaluation")} == {100.0}

  with pytest.raises(UserError, match='"num_values": 18.*trained on.*6'):
    evaluate.main([*play, "--option", "full_action_set=true"])


@pytest.mark.parametrize("arguments,message", [
  (["--episodes=0"], "--episodes must be a whole number of at least 1"),
  (["--episodes=-3"], "--episodes must be a whole number of at least 1"),
  (["--seed=-1"], "--seed must be"),
  (["--seed=2147483647"], "--seed must be .* at most 2147483638, got"),
  (["--episodes=10", "--environments=4"], "10 does, 4 does not"),
  (["--environments=-4"], "--environments must be"),
  (["--environments=0"], "--environments must be"),
  (["--video=x.avi"], "must be a .gif or .mp4 file, got x.avi"),
  (["--video_fps=10"], "give --video=FILE too"),
  (["--video=x.gif", "--video_fps=-1"], "--video_fps of a .gif file must be"),
  (["--video=x.gif", "--video_fps=51"], r".gif file .* \(0.0, 50.0\], got 51"),
  (["--option", "limit"], "must be NAME=VALUE, got 'limit'"),
  (["--option", "limits=3"], "Did you mean 'limit'"),
  (["--option", "limit=soon"], "must be of type int, got 'soon'"),
  (["--environment=cach"], "Did you mean 'catch'"),
  (["--environment="], "--environment is empty"),
  (["--environment=catch"], r"observations are .*\[10, 5\].*trained on .*\[4"),
  (["--protocol=machado"], "--protocol is for Atari"),
  (["--networks=python:not.there:make"], "factory of networks.*imported"),
])
def test_mistakes(walk, tmp_path, arguments, message):
  output = tmp_path / "results"
  with pytest.raises(UserError, match=message):
    evaluate.main([str(walk), f"--output={output}", *arguments])
  assert not output.exists()


def test_what_is_no_policy(tmp_path):
  with pytest.raises(UserError, match="There is no file or folder"):
    evaluate.main([str(tmp_path / "none")])
  (tmp_path / "file").write_text("")
  run = make_run(tmp_path / "run", "catch")
  with pytest.raises(UserError, match="file cannot be written"):
    evaluate.main([str(run), f"--output={tmp_path / 'file'}"])
  result = subprocess.run(
    [sys.executable, "-m", "programs.evaluate", str(tmp_path / "none")],
    capture_output=True, text=True, env=runs.environment(),
  )
  assert result.returncode == 2
  assert result.stderr.startswith("Error: There is no file or folder")


def test_a_file_runs_no_code_that_only_it_names(walk, tmp_path, monkeypatch):
  path = tmp_path / "policy.npz"
  acme_stac.export_policy(walk, path)
  with pytest.raises(UserError, match=f"give --environment={HERE}:Walk"):
    evaluate.main([str(path)])
  assert evaluate.main(
    [str(path), f"--environment={HERE}:Walk", "--episodes=2"]
  ) == 0
  found = results(tmp_path / "policy_evaluation")
  # The run's options, as it is the run's environment.
  assert found["environment_options"] == {"limit": 10}
  assert found["checkpoint"] == str(path)

  own = tmp_path / "own"
  config = helpers.small_config()
  batch = environments.make_batched("catch", 1, 0)
  name = "python:acme_stac.networks:make_networks"
  test_trained_policy.save(
    own, environments.environment_spec(batch), config, {"networks": name}
  )
  assert evaluate.main([str(own), "--episodes=2"]) == 0
  acme_stac.export_policy(own, path)
  with pytest.raises(UserError, match=f"give --networks={name}"):
    evaluate.main([str(path)])
  assert evaluate.main(
    [str(path), f"--networks={name}", "--episodes=2"]
  ) == 0


@pytest.mark.parametrize("fault,message", [
  ("raise", "the motor is hot"), ("nan", "reward that is not finite"),
])
def test_environments_that_fail(walk, tmp_path, capsys, fault, message):
  assert evaluate.main([
    str(walk), "--episodes=2", "--option", f"fault={fault}",
    f"--output={tmp_path}",
  ]) == 1
  error = capsys.readouterr().err
  assert message in error and "Its last actions" in error
  assert not (tmp_path / "evaluation.json").exists()


def test_gif_of_catch(tmp_path, capsys):
  run = make_run(tmp_path, "catch")
  path = tmp_path / "catch.gif"
  assert evaluate.main([
    str(run), "--episodes=1", f"--video={path}", "--video_fps=5"
  ]) == 0
  with Image.open(path) as gif:
    frames, durations = [], []
    for frame in ImageSequence.Iterator(gif):
      frames.append(np.asarray(frame.convert("RGB")).astype(int))
      durations.append(frame.info["duration"])
  # Nine actions, and a time step before them; the strip is wider than a board.
  assert len(frames) == 10 and durations == [200] * 9 + [1500]
  height, width, _ = frames[0].shape
  assert height >= 240 and width > 2 * 120
  assert {frame.shape for frame in frames} == {(height, width, 3)}
  # The ball falls a row a frame, in rows of 24 pixels.
  for number, frame in enumerate(frames[:-1]):
    ball = frame[:, :120, 0] > 150
    assert (np.flatnonzero(ball.any(1)) // 24 == number).all() and ball.any()
  # The time step is another one in each.
  assert all(
    np.any(one[:60, 120:] != other[:60, 120:])
    for one, other in zip(frames[:-1], frames[1:], strict=True)
  )
  assert "in 9 actions, 10 frames, 5 per second" in capsys.readouterr().out


def test_mp4(walk, tmp_path):
  path = tmp_path / "walk.mp4"
  assert evaluate.main([
    str(walk), f"--environment={HERE}:Drawn", "--episodes=1",
    f"--video={path}", f"--output={tmp_path}", "--option", "limit=8",
    "--video_fps=60",
  ]) == 0
  film = cv2.VideoCapture(str(path))
  assert film.isOpened()
  assert 2 <= film.get(cv2.CAP_PROP_FRAME_COUNT) <= 9
  # 9 × 7 pixels, enlarged.
  assert film.get(cv2.CAP_PROP_FRAME_WIDTH) > 243
  assert film.get(cv2.CAP_PROP_FPS) == 60
  with pytest.raises(UserError, match="Walk has no method render"):
    evaluate.main([str(walk), f"--video={path}", f"--output={tmp_path}"])


def pictures(number):
  rng = np.random.default_rng(0)
  return [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(number)]


def test_mp4_in_a_browser(tmp_path):
  video.write(tmp_path / "x.mp4", pictures(20), 10.0)
  page = tmp_path / "page.html"
  page.write_text(
    '<video id="video" src="x.mp4" muted></video><script>'
    "const video = document.getElementById('video');"
    "for (const name of ['loadeddata', 'error']) video.addEventListener("
    " name, () => { document.title ="
    " `${name} ${video.videoWidth} ${video.duration}`; });</script>"
  )
  shown = test_report.show(
    page, tmp_path, "--dump-dom", "--virtual-time-budget=20000"
  )
  assert re.search(r"<title>(.*?)</title>", shown)[1] == "loadeddata 96 2"


@pytest.mark.parametrize("name", ["x.gif", "x.mp4"])
def test_half_a_video_is_none(tmp_path, name):
  path = tmp_path / name
  path.write_text("old")
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  # As a full disk.
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
  try:
    with pytest.raises(OSError, match="File too large|has 0 of 30 frames"):
      video.write(path, pictures(30), 10.0)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_long_episodes_have_frames_all_along(tmp_path):
  """And what is written beside them is the agent's."""
  config = helpers.small_config(behaviour="random_head")
  run = make_run(tmp_path, "catch", config, rows=30)
  policy = acme_stac.load_policy(run)
  environment = environments.make_batched("catch", 1, 0, rows=30)
  film = video.record(environment, policy, seed=0, max_frames=10)
  assert (film.length, film.stride) == (29, 4)
  # Steps 0, 4, ..., 28, and the last; cells have 8 pixels.
  ball = [np.argmax((frame[:, :40, 0] > 150).any(1)) // 8
          for frame in film.frames]
  assert ball == [*range(0, 29, 4), 29]

  heads = set()
  for seed in range(10):
    state = policy.initial_state(1, seed)
    policy(np.zeros((1, 30, 5)), state)
    written = dict(video._rows(policy, state, 12, 3.5))
    assert written["step"] == "12" and written["return"] == "3.5"
    head = int(state.head[0])
    heads.add(head)
    assert f"head {head}" in written
    gamma = policy.metaparameters["discount"][head]
    assert written["γ"] == f"{gamma:.4f}"
    assert len(written) == 4 + len(policy.metaparameters)
  assert len(heads) > 1


@pytest.mark.parametrize("picture,message", [
  (np.zeros((4, 4), np.uint8), r"must return RGB.*got uint8 \(4, 4\)"),
  (np.zeros((4, 4, 3)), "got float64"),
])
def test_pictures_that_are_none(walk, picture, message):
  environment = environments.make_batched(Drawn, 1, 0)
  environment.render = lambda: picture
  with pytest.raises(ValueError, match=message):
    video.record(environment, acme_stac.load_policy(walk), 0, 10)
