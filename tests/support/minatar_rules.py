"""gymnax's games of MinAtar beside the original ones, step by step.

A step of gymnax is compared with a step of the original from the same state
with the same action. What a game draws at random is given to the original.
"""

from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import minatar
import numpy as np
from gymnax.environments.minatar import asterix as jax_asterix

GAMES = {
  "asterix": "Asterix-MinAtar",
  "breakout": "Breakout-MinAtar",
  "freeway": "Freeway-MinAtar",
  "seaquest": "Seaquest-MinAtar",
  "space_invaders": "SpaceInvaders-MinAtar",
}
_NUMBERS = {
  "asterix": (
    "player_x", "player_y", "shot_timer", "spawn_speed", "spawn_timer",
    "move_speed", "move_timer", "ramp_timer", "ramp_index",
  ),
  "breakout": (
    "ball_y", "ball_x", "ball_dir", "pos", "last_y", "last_x", "strike",
  ),
  "freeway": ("pos", "move_timer"),
  "seaquest": (
    "oxygen", "diver_count", "sub_x", "sub_y", "sub_or", "surface",
    "e_spawn_speed", "e_spawn_timer", "d_spawn_timer", "move_speed",
    "ramp_index", "shot_timer",
  ),
  "space_invaders": (
    "pos", "alien_dir", "enemy_move_interval", "alien_move_timer",
    "alien_shot_timer", "ramp_index", "shot_timer",
  ),
}
_MAPS = {
  "breakout": ("brick_map",),
  "space_invaders": ("f_bullet_map", "e_bullet_map", "alien_map"),
}
# Lists of Seaquest and the counters of their elements.
_LISTS = {
  "f_bullets": "f_bullet_count",
  "e_bullets": "e_bullet_count",
  "e_fish": "e_fish_count",
  "e_subs": "e_subs_count",
  "divers": "divers_count",
}


class Step(NamedTuple):
  """A step of gymnax.

  Attributes:
    state: before the step.
    action: of the six that the original has.
    drawn: what the game draws at random in this step: Asterix's new entity and
      its place, Seaquest's state with what it puts on the board.
    board: observation after the step.
    reward: of the step.
    done: whether the game is over.
    new: state after the step.
  """

  state: Any
  action: Any
  drawn: Any
  board: Any
  reward: Any
  done: Any
  new: Any


def _act(name: str, key: Any, state: Any, num_actions: int) -> Any:
  """Returns a random action; Breakout's paddle often follows the ball."""
  keys = jax.random.split(key)
  action = jax.random.randint(keys[0], (), 0, num_actions)
  good = action
  if name == "breakout":
    goes_right = (state.ball_dir == 1) | (state.ball_dir == 2)
    ball = state.ball_x + jnp.where(goes_right, 1, -1)
    good = jnp.where(ball == state.pos, 0, jnp.where(ball < state.pos, 1, 2))
  if name == "freeway":
    good = jnp.int32(1)
  return jnp.where(jax.random.uniform(keys[1]) < 0.8, good, action)


def play(name: str, num_games: int, length: int) -> list[Step]:
  """Returns the steps of games of gymnax, each of `length` steps."""
  game, params = gymnax.make(GAMES[name])
  params = params.replace(max_steps_in_episode=10**6)

  def step(state: Any, key: Any) -> Any:
    act_key, step_key, reset_key = jax.random.split(key, 3)
    action = _act(name, act_key, state, game.num_actions)
    board, new, reward, done, _ = game.step_env(step_key, state, action, params)
    drawn: Any = ()
    if name == "asterix":
      drawn = jax_asterix.spawn_entity(step_key, state)
    if name == "seaquest":
      # Private, but nothing else shows what is put on the board.
      drawn = game._spawn_entities(*jax.random.split(step_key), state, params)
    row = Step(state, game.action_set[action], drawn, board, reward, done, new)
    _, fresh = game.reset_env(reset_key, params)
    state = jax.tree_util.tree_map(
      lambda a, b, like: jnp.where(done, a, b).astype(like.dtype),
      fresh, new, state,
    )
    return state, row

  @jax.jit
  @jax.vmap
  def run(key: Any) -> Step:
    reset_key, key = jax.random.split(key)
    _, state = game.reset_env(reset_key, params)
    state = jax.tree_util.tree_map(jnp.asarray, state)
    return jax.lax.scan(step, state, jax.random.split(key, length))[1]

  rows = jax.device_get(run(jax.random.split(jax.random.PRNGKey(0), num_games)))
  leaves, structure = jax.tree_util.tree_flatten(rows)
  return [
    jax.tree_util.tree_unflatten(structure, [leaf[i, t] for leaf in leaves])
    for i in range(num_games) for t in range(length)
  ]


def make_original(name: str) -> minatar.Environment:
  """Makes the original game, without sticky actions."""
  return minatar.Environment(name, sticky_action_prob=0.0)


def replay(
  original: minatar.Environment, step: Step
) -> tuple[np.ndarray, float, bool]:
  """Returns board, reward and end of the original game's same step."""
  name, game = original.game_name(), original.env
  game.terminal = False
  if name == "freeway":
    game.terminate_timer = 10**6
  state = step.drawn if name == "seaquest" else step.state
  for number in _NUMBERS[name]:
    setattr(game, number, int(getattr(state, number)))
  for board in _MAPS.get(name, ()):
    setattr(game, board, np.array(getattr(state, board), float))
  if name == "asterix":
    game.entities = [_entity(x) for x in state.entities]
    entity, place = step.drawn

    def spawn():
      game.entities[place] = _entity(entity)

    game._spawn_entity = spawn
  if name == "freeway":
    game.cars = [list(map(int, car)) for car in state.cars]

    def randomize_cars(initialize: bool):
      for car, new in zip(game.cars, step.new.cars, strict=True):
        car[2:] = abs(int(new[3])), int(new[3])

    game._randomize_cars = randomize_cars
  if name == "seaquest":
    for things, count in _LISTS.items():
      rows = getattr(state, things)[: getattr(state, count)]
      setattr(game, things, [[*map(int, row)] for row in rows])
  reward, done = original.act(int(step.action))
  return original.state(), reward, done


def _entity(numbers: Any) -> list[int] | None:
  """Returns an entity of Asterix; None for a free place."""
  *entity, is_there = map(int, numbers)
  return entity if is_there else None
