import subprocess
import sys

BLOCK = """
import sys

class Block:
  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] in {blocked!r}:
      raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Block())
"""
DISTRIBUTED = (
  "acme",
  "ale_py",
  "cv2",
  "courier",
  "gym",
  "gymnasium",
  "launchpad",
  "ml_collections",
  "reverb",
  "tensorflow",
)


def run(code, blocked=DISTRIBUTED):
  program = BLOCK.format(blocked=blocked) + code
  return subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True
  )


def test_core_needs_only_jax():
  result = run(
    """
import acme_stac, jax, numpy as np
from acme_stac import core
from acme_stac.environments import Catch, environment_spec
from tests.support import helpers
config = helpers.small_config()
update = core.make_update(helpers.networks(config), config)
state, _ = jax.jit(update.update)(
  update.init(jax.random.PRNGKey(0)), helpers.trajectory(config))
print(int(state.step))
"""
  )
  assert result.stdout == "1\n", result.stderr


def test_the_block_blocks():
  assert "blocked" in run("import acme_stac.agent.adders").stderr


def test_package_imports_nothing_heavy():
  result = run(
    "import acme_stac; acme_stac.STACConfig(); print('ok')",
    (*DISTRIBUTED, "jax", "haiku", "numpy"),
  )
  assert result.stdout == "ok\n", result.stderr
