"""What learns and acts on one host needs none of the distributed layer."""

from tests.core import test_imports


def test_training_needs_neither_acme_nor_tensorflow():
  result = test_imports.run("""
import sys
import jax
from acme_stac import environments, make_config, training
from acme_stac.environment_loop import BatchedEnvironmentLoop
from acme_stac.networks import make_policy

config = make_config(
  "stac", "small", batch_size=4, trajectory_length=5, torso_sizes=(8,),
  head_sizes=(8,), num_environment_steps=2000,
)
environment = environments.make_batched("catch", 2, seed=0)
spec = environments.environment_spec(environment)
builder = training.AgentBuilder(config, environments_per_actor=2)
networks = builder.make_networks(spec)
queue = builder.make_local_queue()
learner = builder.make_learner(
  jax.random.PRNGKey(0), networks, builder.make_batches(queue)
)
actor = builder.make_actor(
  jax.random.PRNGKey(1), make_policy(networks, config), learner,
  builder.make_adder(queue, spec),
)
loop = BatchedEnvironmentLoop(environment, actor)
for _ in range(3):
  for _ in range(2 * config.trajectory_length):
    loop.step(wait_for_variables=True)
  learner.step()
print(learner.num_steps, actor.fetch_variables())
assert not {"acme", "launchpad", "reverb", "tensorflow"} & set(sys.modules)
""")
  assert result.stdout == "3 3\n", result.stderr
