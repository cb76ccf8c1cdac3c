import numpy as np
from dm_env import specs


def play(environment, steps, seed=0, actions=None):
  """Plays a batch at random, or by a list of actions; copies observations."""
  rng = np.random.default_rng(seed)
  spec = environment.action_spec()
  members = environment.num_environments

  def random_action():
    if isinstance(spec, specs.DiscreteArray):
      return rng.integers(0, spec.num_values, members)
    size = (members, *spec.shape)
    return rng.uniform(spec.minimum, spec.maximum, size).astype(spec.dtype)

  def copy(step):
    return step._replace(observation=np.array(step.observation))

  trace = [copy(environment.reset())]
  for t in range(steps):
    trace.append(
      copy(environment.step(random_action() if actions is None else actions[t]))
    )
  return trace
