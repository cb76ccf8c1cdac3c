"""Catch: a ball falls and a paddle must be under it."""

import dm_env
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import base

# Longer side of a drawn board, in pixels.
_DRAWN_SIZE = 240
_BACKGROUND, _BALL, _PADDLE = (24, 24, 32), (240, 190, 60), (80, 160, 240)


class Board(base.HasSpecs):
  """The size and the specs of the game."""

  def __init__(self, rows: int = 10, columns: int = 5):
    checks.check_integer("rows", rows, 2, checks.MAX_SIZE)
    checks.check_integer("columns", columns, 1, checks.MAX_SIZE)
    self._rows, self._columns = rows, columns

  def observation_spec(self) -> specs.BoundedArray:
    shape = (self._rows, self._columns)
    return specs.BoundedArray(shape, np.float32, 0.0, 1.0, name="board")

  def action_spec(self) -> specs.DiscreteArray:
    return specs.DiscreteArray(3, name="action")


class Catch(Board, base.BatchedEnvironment):
  """The game of bsuite on N boards.

  The ball starts at the top in a random column and falls one row per step; the
  paddle in the bottom row moves left, stays or moves right. An episode lasts
  rows − 1 steps; its last reward is 1 for a catch and −1 for a miss, all others
  are 0. An observation is the board, float32 [rows, columns], with ones at the
  ball and the paddle.
  """

  def __init__(
    self, num_environments: int, seed: int, rows: int = 10, columns: int = 5
  ):
    super().__init__(rows, columns)
    self.num_environments = num_environments
    self._rng = np.random.default_rng(seed)
    self._ball_row = np.zeros(num_environments, np.int64)
    self._ball_column = np.zeros(num_environments, np.int64)
    self._paddle = np.zeros(num_environments, np.int64)
    self._ended = np.zeros(num_environments, bool)

  def reset(self) -> dm_env.TimeStep:
    self._ended[:] = True
    return self.step(np.zeros(self.num_environments, np.int64))

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    base.check_choices(actions, 3, self.num_environments)
    first = self._ended
    self._ball_row = np.where(first, 0, self._ball_row + 1)
    self._ball_column[first] = self._rng.integers(
      self._columns, size=np.sum(first)
    )
    moved = np.clip(self._paddle + actions - 1, 0, self._columns - 1)
    self._paddle = np.where(first, self._columns // 2, moved)
    self._ended = self._ball_row == self._rows - 1
    caught = np.where(self._paddle == self._ball_column, 1.0, -1.0)
    return base.time_step(
      observation=self._boards(),
      reward=np.where(self._ended, caught, 0.0),
      first=first,
      terminated=self._ended,
      truncated=np.zeros_like(self._ended),
    )

  def _boards(self) -> np.ndarray:
    members = np.arange(self.num_environments)
    boards = np.zeros(
      (self.num_environments, self._rows, self._columns), np.float32
    )
    boards[members, self._ball_row, self._ball_column] = 1.0
    boards[members, -1, self._paddle] = 1.0
    return boards

  def render(self) -> np.ndarray:
    return draw(
      self._rows,
      self._columns,
      self._ball_row[0],
      self._ball_column[0],
      self._paddle[0],
    )


def draw(
  rows: int, columns: int, ball_row: int, ball_column: int, paddle: int
) -> np.ndarray:
  """Draws a board; RGB, uint8 [height, width, 3]."""
  board = np.full((rows, columns, 3), _BACKGROUND, np.uint8)
  board[-1, paddle] = _PADDLE
  ball = board[ball_row, ball_column]
  # Nearly white where the paddle has the ball.
  np.maximum(ball, np.array(_BALL, np.uint8), out=ball)
  cell = max(1, _DRAWN_SIZE // max(rows, columns))
  return board.repeat(cell, axis=0).repeat(cell, axis=1)
