"""Environments written in JAX by name."""

import sys

import jax
import numpy as np
import pytest

from acme_stac import environments, on_device
from acme_stac.on_device import registry
from tests.support import jax_environments

SUPPORT = "python:tests.support.jax_environments"
COUNTING = f"{SUPPORT}:Counting"


def test_a_class_is_made_with_its_options():
  environment = registry.make(COUNTING, limit=3)
  assert isinstance(environment, jax_environments.Counting)
  assert environment.limit == 3
  with pytest.raises(ValueError, match="limit .* must be of type int"):
    registry.make(COUNTING, limit="3")
  with pytest.raises(ValueError, match="option .*'limits'.* mean 'limit'"):
    registry.make(COUNTING, limits=3)


def test_a_function_whose_annotation_is_an_environment_is_a_factory():
  name = f"{SUPPORT}:make_corridor"
  assert registry.is_on_device(name)
  assert isinstance(registry.make(name), jax_environments.Corridor)
  assert registry.parameters(name).options == {"extra": int}
  # In the other layouts, too.
  batch = environments.make_batched(name, 2, seed=0, extra=1)
  assert batch.reset().observation.shape == (2, 6)
  with pytest.raises(ValueError, match="make_nothing.*got NoneType"):
    registry.make(f"{SUPPORT}:make_nothing")


def test_names_of_environments_written_in_jax():
  assert registry.is_on_device("catch")
  assert registry.is_on_device("gymnax:Breakout-MinAtar")
  assert registry.is_on_device(COUNTING)
  assert not registry.is_on_device("atari:breakout")
  assert not registry.is_on_device("gymnasium:CartPole-v1")
  assert not registry.is_on_device("python:pathlib:Path")
  with pytest.raises(ValueError, match="No module named 'nowhere'"):
    registry.is_on_device("python:nowhere:Class")


@pytest.mark.parametrize(
  "name,message",
  [
    ("gymnasium:Catch-v0", "not written in JAX.*Did you mean 'catch'"),
    ("catsh", "Did you mean 'catch'"),
    ("python:pathlib:Path", "makes no acme_stac.on_device.Environment"),
    (f"{SUPPORT}:make_unannotated", "with one as return annotation"),
    ("python:nowhere:Class", "No module named 'nowhere'"),
    (f"{COUNTING}s", "has no attribute 'Countings'"),
  ],
)
def test_other_names_are_refused(name, message):
  with pytest.raises(ValueError, match=message):
    registry.make(name)


def test_a_class_that_raises_is_named():
  with pytest.raises(ValueError, match="Counting.*limit.*-1.*at least 1"):
    registry.make(COUNTING, limit=-1)


@pytest.mark.parametrize(
  "name,similar",
  [
    ("atari:breakout", "gymnax:Breakout-MinAtar"),
    ("gymnasium:CartPole-v1", "gymnax:CartPole-v1"),
    ("gymnax:Breakout", "Breakout-MinAtar"),
  ],
)
def test_similar_names_of_gymnax_are_shown(name, similar):
  pytest.importorskip("gymnax")
  with pytest.raises(ValueError, match=f"Did you mean .*'{similar}'"):
    registry.make(name)


def test_without_gymnax_its_names_say_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "gymnax", None)
  monkeypatch.delitem(
    sys.modules, "acme_stac.on_device.gymnax", raising=False
  )
  with pytest.raises(ImportError, match="pip install 'gymnax>=1.0'"):
    registry.make("gymnax:Breakout-MinAtar")


def test_catch_is_played_by_the_rules_of_its_other_implementation():
  """From equal states, the same actions lead to equal steps."""
  options = {"rows": 4, "columns": 3}
  catch = registry.make("catch", **options)
  reset, step = jax.jit(catch.reset), jax.jit(catch.step)
  rng = np.random.default_rng(0)
  starts = set()
  for episode in range(12):
    state, timestep = reset(jax.random.PRNGKey(episode))
    starts.add(int(state.ball_column))
    host = _host_catch(timestep.observation, options)
    while timestep.step_type != 2:
      action = rng.integers(3, dtype=np.int32)
      state, timestep = step(state, action, jax.random.PRNGKey(0))
      wanted = host.step(action)
      np.testing.assert_array_equal(timestep.observation, wanted.observation)
      assert timestep.step_type == wanted.step_type
      assert timestep.reward == wanted.reward
      assert timestep.discount == wanted.discount
      np.testing.assert_array_equal(
        catch.render(state), host.batch.render()
      )
  assert starts == {0, 1, 2}


def _host_catch(start, options):
  """Returns the host's environment after a reset to a start."""
  for seed in range(100):
    host = environments.make("catch", seed=seed, **options)
    if np.array_equal(host.reset().observation, start):
      return host
  raise AssertionError("no seed has this start")


def test_catch_has_the_specs_of_its_other_implementation():
  options = {"rows": 4, "columns": 3}
  assert environments.environment_spec(
    registry.make("catch", **options)
  ) == environments.environment_spec(environments.make("catch", **options))
  assert issubclass(type(registry.make("catch")), on_device.Environment)
  with pytest.raises(ValueError, match="rows must be a whole number"):
    registry.make("catch", rows=1)
