"""Runs of the Launchpad program in one process."""

import pytest

from tests.support import runs


@pytest.mark.slow
@pytest.mark.parametrize("agent,level,budget,per_update", [
  # γ for the actors, with what they write.
  ("stacx_gamma_embedding", "catch", 12_800, 640),
  # Heads for the actors, continuous actions.
  ("stacx_average_ensemble", "control:cartpole/balance", 4_800, 240),
])
def test_variants_train(tmp_path, agent, level, budget, per_update):
  result = runs.run(
    tmp_path,
    "--launch=local_mt",
    f"--config.agent={agent}",
    f"--config.num_environment_steps={budget}",
    "--config.log_every_seconds=0.01",
    *runs.SMALL[:3],
    config=f"configs/small.py:{level}",
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert "Done." in result.stdout
  runs.check_variant(tmp_path, budget // per_update)
