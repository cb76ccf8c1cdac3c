"""Catch, written in JAX."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_stac.environments import catch
from acme_stac.on_device import environment

Array = jax.Array


class CatchState(NamedTuple):
  """Row and column of the ball, column of the paddle; int32 []."""

  ball_row: Array
  ball_column: Array
  paddle: Array


class Catch(catch.Board, environment.Environment):
  """The game of `acme_stac.environments.Catch`: same specs, rules, options."""

  name = "catch"

  def reset(self, key: Array) -> tuple[CatchState, dm_env.TimeStep]:
    column = jax.random.randint(key, (), 0, self._columns, jnp.int32)
    state = CatchState(jnp.int32(0), column, jnp.int32(self._columns // 2))
    return state, environment.restart(self._board(state))

  def step(
    self, state: CatchState, action: Array, key: Array
  ) -> tuple[CatchState, dm_env.TimeStep]:
    del key
    moved = state.paddle + jnp.asarray(action, jnp.int32) - 1
    state = CatchState(
      ball_row=state.ball_row + 1,
      ball_column=state.ball_column,
      paddle=jnp.clip(moved, 0, self._columns - 1),
    )
    ended = state.ball_row == self._rows - 1
    caught = jnp.where(state.paddle == state.ball_column, 1.0, -1.0)
    reward = jnp.where(ended, caught, 0.0)
    return state, environment.transition(self._board(state), reward, ended)

  def _board(self, state: CatchState) -> Array:
    board = jnp.zeros((self._rows, self._columns), jnp.float32)
    board = board.at[state.ball_row, state.ball_column].set(1.0)
    return board.at[-1, state.paddle].set(1.0)

  def render(self, state: CatchState) -> np.ndarray:
    return catch.draw(self._rows, self._columns, *map(int, state))
