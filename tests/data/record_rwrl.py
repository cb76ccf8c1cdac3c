"""Records rwrl_golden.npz from the published suite; not needed by the tests.

    PYTHONPATH=<realworldrl_suite's root> python tests/data/record_rwrl.py

The data were recorded with google-research/realworldrl_suite at commit
be7a51cffa7f5f9cb77a387c16bad209e0f851f8, dm-control 1.0.50, MuJoCo 3.17.0 and
NumPy 1.26.4.

Every case is played with NumPy's global generator seeded, fixed actions and
resets at fixed steps. For every time step the file has the step type, the
reward (NaN at a reset), the applied control's sum, and three weighted sums of
the flat observation, in which every component has a weight of its own.
"""

import json
import pathlib
import sys

import numpy as np

TASKS = {
  "cartpole": ("balance", "swingup"),
  "walker": ("stand", "walk", "run"),
  "quadruped": ("walk", "run"),
  "humanoid": ("stand", "walk"),
}
PARAMETERS = {
  "cartpole": ("pole_length", "pole_mass", "joint_damping", "slider_damping"),
  "walker": (
    "thigh_length",
    "torso_length",
    "joint_damping",
    "contact_friction",
  ),
  "quadruped": (
    "shin_length",
    "torso_density",
    "joint_damping",
    "contact_friction",
  ),
  "humanoid": ("contact_friction", "joint_damping", "head_size"),
}
SCHEDULERS = (
  "constant",
  "random_walk",
  "drift_pos",
  "drift_neg",
  "cyclic_pos",
  "cyclic_neg",
  "uniform",
  "saw_wave",
)


def cases():
  """Yields name, domain, task, level, options of Challenges, steps, resets."""
  for domain, tasks in TASKS.items():
    task = tasks[1] if domain in ("cartpole", "walker", "humanoid") else "walk"
    for level in ("none", "easy", "medium", "hard"):
      yield (f"{domain} {level}", domain, task, level, {}, 50, [30])
    for parameter in PARAMETERS[domain]:
      options = {
        "perturbation": parameter,
        "perturbation_scheduler": "uniform",
      }
      yield (
        f"{domain} {parameter}", domain, task, "none", options, 16, [8]
      )
    for each in tasks:
      for coefficient in (1.0, 0.3):
        options = {
          "safety": True,
          "safety_coefficient": coefficient,
          "observation_delay": 2,
          "reward_delay": 1,
          "multi_objective_alpha": 0.4,
          "multi_objective_observed": True,
        }
        yield (
          f"{domain} {each} safety {coefficient}",
          domain, each, "none", options, 30, [20],
        )
  yield (
    "hidden safety", "walker", "walk", "medium",
    {"safety": True, "safety_observed": False, "multi_objective_alpha": 0.5},
    20, [],
  )
  yield (
    "action rate", "quadruped", "walk", "none",
    {"safety": True, "safety_constraints": ["upright", "action_rate"],
     "safety_coefficient": 0.5},
    20, [],
  )
  for scheduler in SCHEDULERS:
    for low in (0.3, 1.1):
      options = {
        "perturbation": "pole_length",
        "perturbation_scheduler": scheduler,
        "perturbation_start": 1.3,
        "perturbation_min": low,
        "perturbation_max": 1.5,
        "perturbation_std": 0.15,
        "perturbation_period": 2,
      }
      yield (
        f"{scheduler} from {low}", "cartpole", "swingup", "none", options, 48,
        list(range(1, 48, 2)),
      )
  single = {
    "action delay": {"action_delay": 4},
    "observation delay": {"observation_delay": 4},
    "reward delay": {"reward_delay": 4},
    "action noise": {"action_noise": 0.5},
    "observation noise": {"observation_noise": 0.5},
    "dropped actions": {
      "dropped_actions_probability": 0.2, "dropped_actions_steps": 3},
    "dropped observations": {
      "dropped_observations_probability": 0.2,
      "dropped_observations_steps": 3},
    "stuck actions": {
      "stuck_actions_probability": 0.2, "stuck_actions_steps": 3},
    "stuck observations": {
      "stuck_observations_probability": 0.2,
      "stuck_observations_steps": 3},
    "repetition": {"repetition_probability": 0.4, "repetition_steps": 3},
    "random observations": {"random_observations": 3},
  }
  for name, options in single.items():
    yield (name, "walker", "walk", "none", options, 40, [25])


def upstream_specs(domain, level, options):
  """Returns the published suite's arguments for options of Challenges."""
  o = dict(options)
  specs = {}
  if level != "none":
    specs["combined_challenge"] = level
  delays = {
    "actions": o.pop("action_delay", 0),
    "observations": o.pop("observation_delay", 0),
    "rewards": o.pop("reward_delay", 0),
  }
  if any(delays.values()):
    specs["delay_spec"] = {"enable": True, **delays}
  noise = {}
  gaussian = {
    "actions": o.pop("action_noise", 0.0),
    "observations": o.pop("observation_noise", 0.0),
  }
  if any(gaussian.values()):
    noise["gaussian"] = {"enable": True, **gaussian}
  for kind in ("dropped", "stuck"):
    part = {}
    for what in ("actions", "observations"):
      probability = o.pop(f"{kind}_{what}_probability", None)
      if probability is not None:
        part[f"{what}_prob"] = probability
        part[f"{what}_steps"] = o.pop(f"{kind}_{what}_steps")
    if part:
      noise[kind] = {"enable": True, **part}
  if "repetition_steps" in o:
    noise["repetition"] = {
      "enable": True,
      "actions_prob": o.pop("repetition_probability"),
      "actions_steps": o.pop("repetition_steps"),
    }
  if noise:
    specs["noise_spec"] = noise
  if "random_observations" in o:
    specs["dimensionality_spec"] = {
      "enable": True,
      "num_random_state_observations": o.pop("random_observations"),
    }
  if "perturbation" in o:
    perturb = {"enable": True, "param": o.pop("perturbation")}
    for name in ("scheduler", "period", "start", "min", "max", "std"):
      if f"perturbation_{name}" in o:
        perturb[name] = o.pop(f"perturbation_{name}")
    specs["perturb_spec"] = perturb
  if o.pop("safety", False):
    specs["safety_spec"] = {
      "enable": True,
      "observations": o.pop("safety_observed", True),
      "safety_coeff": o.pop("safety_coefficient", 1.0),
    }
    if "safety_constraints" in o:
      import realworldrl_suite.environments as suite

      specs["safety_spec"]["constraints"] = {
        name: getattr(
          suite.DOMAINS[domain],
          {"action_rate": "action_roc"}.get(name, name) + "_constraint",
        )
        for name in o.pop("safety_constraints")
      }
  if "multi_objective_alpha" in o:
    specs["multiobj_spec"] = {
      "enable": True,
      "objective": "safety",
      "reward": True,
      "coeff": o.pop("multi_objective_alpha"),
      "observed": o.pop("multi_objective_observed", False),
    }
  assert not o, o
  return specs


def play(environment, steps, resets, seed):
  """Returns what the file has of every time step, float64 [steps + 1, 6]."""
  np.random.seed(seed)
  spec = environment.action_spec()
  middle = (spec.maximum + spec.minimum) / 2
  # Beyond the bounds at times, to see where actions are clipped.
  reach = 0.6 * (spec.maximum - spec.minimum)
  phases = np.arange(spec.shape[0])
  rows = []
  for t in range(steps + 1):
    if t == 0 or t in resets:
      step = environment.reset()
    else:
      step = environment.step(middle + reach * np.sin(0.3 * t + phases))
    observation = np.concatenate(
      [np.ravel(value) for value in step.observation.values()]
    ).astype(np.float64)
    weights = np.cos(np.outer([1.0, 2.0, 3.0], np.arange(observation.size)))
    rows.append([
      int(step.step_type),
      np.nan if step.reward is None else step.reward,
      environment.physics.control().sum(),
      *(weights * observation).sum(1),
    ])
  return np.array(rows)


def main():
  """Writes the file."""
  import realworldrl_suite.environments as suite

  described, arrays = [], {}
  for index, (name, domain, task, level, options, steps, resets) in enumerate(
    cases()
  ):
    environment = suite.load(
      domain,
      f"realworld_{task}",
      random=index,
      **upstream_specs(domain, level, options),
    )
    arrays[f"trace_{index}"] = play(environment, steps, resets, 100 + index)
    described.append({
      "name": name,
      "domain": domain,
      "task": task,
      "level": level,
      "options": options,
      "steps": steps,
      "resets": resets,
    })
    print(name, file=sys.stderr)
  path = pathlib.Path(__file__).parent / "rwrl_golden.npz"
  np.savez_compressed(path, cases=json.dumps(described), **arrays)


if __name__ == "__main__":
  main()
