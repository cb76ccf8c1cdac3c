"""Records a video of one episode, with the agent's numbers beside it."""

import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import dm_env
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from acme_stac import environment_loop, environments, trained_policy
from acme_stac.evaluation import logs

# Suffix -> maximum number of frames. Longer GIFs are too large for a page.
MAX_FRAMES = {".gif": 300, ".mp4": 3000}
# Maximum frames per second. Browsers show faster GIFs at 10.
MAX_RATES = {".gif": 50.0, ".mp4": 100.0}
# Default length of a video, within these limits of its frame rate.
_SECONDS = 10.0
_MIN_FPS, _MAX_FPS = 4.0, 30.0
# How long the last frame of a GIF stays before it starts again.
_PAUSE_SECONDS = 1.5
# Smaller pictures are enlarged by whole factors, larger ones are shrunk.
_MIN_SIDE, _MAX_SIDE = 240, 480
_STRIP_WIDTH, _COLUMN_WIDTH = 160, 66
_LINE_HEIGHT, _MARGIN, _FONT_SIZE = 20, 10, 14
# Number of frames from which a GIF's colours are chosen.
_SAMPLES = 8
_INK, _PAPER = (20, 20, 20), (236, 236, 236)


class Video(NamedTuple):
  """An episode in pictures.

  Attributes:
    frames: each uint8 [height, width, 3], of one size, with both even.
    episode_return: sum of the environment's own rewards.
    length: number of actions.
    stride: actions between frames; the last frame shows the last time step.
  """

  frames: list[np.ndarray]
  episode_return: float
  length: int
  stride: int


def record(
  environment: environments.BatchedEnvironment,
  policy: trained_policy.TrainedPolicy,
  seed: int,
  max_frames: int,
) -> Video:
  """Plays one episode and draws it.

  Drops every second frame and doubles the stride whenever there are more than
  `max_frames`, so that frames are spread evenly over the episode.

  Args:
    environment: batch of one environment that can be drawn.
    policy: policy to act with.
    seed: seed of the policy's samples.
    max_frames: maximum number of frames, at least 2.

  Raises:
    ValueError: if render() does not return pictures of one size.
    Exception: what the environment raises, if it cannot be drawn.
  """
  frames: list[np.ndarray] = []
  stride = 1
  total, length = 0.0, 0
  state = policy.initial_state(1, seed)
  timestep = environment.reset()
  while True:
    last = timestep.step_type[0] == dm_env.StepType.LAST
    # Acts before drawing, as that chooses the head that is shown.
    if not last:
      action = policy(timestep.observation, state)
    if last or length % stride == 0:
      if len(frames) == max_frames:
        frames, stride = frames[::2], 2 * stride
      if last or length % stride == 0:
        picture = _checked(environment.render())
        frames.append(_beside(picture, _rows(policy, state, length, total)))
        if frames[-1].shape != frames[0].shape:
          raise ValueError(
            "The environment draws pictures of different sizes,"
            f" {picture.shape} at step {length}."
          )
    if last or length == environment_loop.MAX_EPISODE_STEPS:
      return Video(frames, total, length, stride)
    timestep = environment.step(action)
    total += float(timestep.reward[0])
    length += 1


def frame_rate(num_frames: int) -> float:
  """Returns the default frames per second of a video."""
  return float(np.clip(num_frames / _SECONDS, _MIN_FPS, _MAX_FPS))


def write(path: pathlib.Path, frames: Sequence[np.ndarray], fps: float):
  """Writes frames, uint8 [height, width, 3], to a .gif or .mp4 file.

  The file is written whole or not at all.

  Raises:
    OSError: if it cannot be written.
  """
  write_file = _write_gif if path.suffix == ".gif" else _write_mp4
  temporary = path.with_name(f".{path.name}")
  try:
    write_file(temporary, frames, fps)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def _write_gif(path: pathlib.Path, frames: Sequence[np.ndarray], fps: float):
  first, *others = _with_one_palette(frames)
  durations = [1000.0 / fps] * len(frames)
  durations[-1] = max(durations[-1], 1000.0 * _PAUSE_SECONDS)
  first.save(
    path, save_all=True, append_images=others, duration=durations, loop=0
  )


def _write_mp4(path: pathlib.Path, frames: Sequence[np.ndarray], fps: float):
  height, width, _ = frames[0].shape
  # VP9: browsers do not play MPEG-4 part 2, and OpenCV has no encoder of H.264.
  writer = cv2.VideoWriter(
    str(path), cv2.VideoWriter.fourcc(*"vp09"), fps, (width, height)
  )
  if not writer.isOpened():
    raise OSError(f"OpenCV cannot write {path}")
  for frame in frames:
    writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
  writer.release()
  # The writer does not report a full disk.
  film = cv2.VideoCapture(str(path))
  written = film.get(cv2.CAP_PROP_FRAME_COUNT) if film.isOpened() else 0
  film.release()
  if written != len(frames):
    raise OSError(
      f"{path} has {written:.0f} of {len(frames)} frames; is the disk full?"
    )


def _with_one_palette(frames: Sequence[np.ndarray]) -> list[Image.Image]:
  """Returns frames that share one palette of 256 colours.

  If every frame had its own palette, frames would differ nearly everywhere, and
  files would be several times as large.
  """
  sample = np.concatenate(frames[:: max(1, len(frames) // _SAMPLES)])
  # Keeps the colours of small objects; other methods keep common colours.
  palette = Image.fromarray(sample).quantize(
    method=Image.Quantize.MAXCOVERAGE
  )
  return [
    Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
    for frame in frames
  ]


def _checked(picture: Any) -> np.ndarray:
  """Returns a picture; raises ValueError if it is not one."""
  picture = np.asarray(picture)
  if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
    raise ValueError(
      "render() of the environment must return RGB, uint8 [height, width, 3],"
      f" got {picture.dtype} {picture.shape}."
    )
  return picture


def _rows(
  policy: trained_policy.TrainedPolicy,
  state: trained_policy.EpisodeState,
  step: int,
  episode_return: float,
) -> Iterator[tuple[str, str]]:
  """Yields the rows of text beside a picture, in two columns."""
  yield "step", f"{step:,}"
  yield "return", f"{episode_return:,.5g}"
  yield "", ""
  if policy.config.behaviour == "average":
    heads = slice(None)
    yield f"{policy.config.num_heads} heads", "mean"
  else:
    head = int(state.head[0])
    heads = slice(head, head + 1)
    yield f"head {head}", ""
  for name, values in policy.metaparameters.items():
    # Weights relative to the outer ones.
    symbol = logs.SYMBOLS[name].partition(" /")[0]
    yield symbol, f"{values[heads].mean():.4f}"


def _beside(
  picture: np.ndarray, rows: Iterator[tuple[str, str]]
) -> np.ndarray:
  """Returns a picture with two columns of text on its right."""
  text = list(rows)
  image = Image.fromarray(picture)
  longer = max(image.size)
  if longer < _MIN_SIDE:
    scale = -(-_MIN_SIDE // longer)
    image = image.resize(
      (image.width * scale, image.height * scale), Image.Resampling.NEAREST
    )
  image.thumbnail((_MAX_SIDE, _MAX_SIDE))
  height = max(image.height, _LINE_HEIGHT * len(text) + 2 * _MARGIN)
  # Video encoders halve the resolution of colours.
  size = (image.width + _STRIP_WIDTH + image.width % 2, height + height % 2)
  frame = Image.new("RGB", size, _PAPER)
  frame.paste(image, (0, 0))
  draw = ImageDraw.Draw(frame)
  font = _font()
  left = image.width + _MARGIN
  for number, columns in enumerate(text):
    top = _MARGIN + _LINE_HEIGHT * number
    for column, words in enumerate(columns):
      place = (left + _COLUMN_WIDTH * column, top)
      draw.text(place, words, fill=_INK, font=font)
  return np.asarray(frame)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
  # Pillow's own font has no Greek letters.
  folder = pathlib.Path(matplotlib.get_data_path()) / "fonts" / "ttf"
  return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), _FONT_SIZE)
