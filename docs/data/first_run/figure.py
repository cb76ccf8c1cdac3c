"""Draws the figure of README.md from the curves beside this file.

python docs/data/first_run/figure.py docs/images/first_run.png
"""

import pathlib
import sys

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_STEPS = np.linspace(10_000, 500_000, 50)
# A run's start and agent -> its label and colour.
_VARIANTS = {
  "start=0.99/stacx": ("right start, self-tuned", "0.55"),
  "start=0.9/stacx": ("wrong start, self-tuned", "#0072b2"),
  "start=0.9/impala_aux": ("wrong start, fixed", "#d55e00"),
}


def _curves(data: pd.DataFrame, variant: str, column: str) -> np.ndarray:
  """Returns a column of each seed at `_STEPS`, [seeds, steps]."""
  runs = data[data.name.str.contains(f"/{variant}/", regex=False)]
  return np.array([
    np.interp(_STEPS, run.environment_steps, run[column])
    for _, run in runs.dropna(subset=[column]).groupby("run")
  ])


def main(output: str) -> None:
  """Draws the acting head's and the auxiliary heads' γ, and the returns."""
  folder = pathlib.Path(__file__).parent
  names = pd.read_csv(folder / "runs.csv")[["run", "name"]]
  data = pd.read_csv(folder / "curves.csv").merge(names, on="run")
  figure = Figure(figsize=(9, 3.4), layout="constrained")
  left, right = figure.subplots(1, 2)
  for head, colour, label in (
    (1, "#e69f00", "auxiliary heads"), (2, "#e69f00", None),
    (0, "#0072b2", "acting head"),
  ):
    discounts = _curves(data, "start=0.9/stacx", f"sigma_discount_head{head}")
    left.plot(_STEPS, 1 / (1 - discounts.T), color=colour, alpha=0.8, lw=1.3)
    left.plot([], color=colour, label=label)
  left.axhline(100, color="black", ls=":", label="outer loss: γ = 0.99")
  left.axhline(10, color="#d55e00", ls="--", label="fixed: γ = 0.9")
  left.set_yscale("log")
  left.set_ylim(5, 200)
  left.set_yticks([10, 100], ["10 (γ = 0.9)", "100 (γ = 0.99)"])
  left.set_title("horizon 1/(1−γ), steps", fontsize=11)
  for variant, (label, colour) in _VARIANTS.items():
    returns = _curves(data, variant, "episode_return")
    right.plot(_STEPS, returns.mean(axis=0), color=colour, label=label)
    right.fill_between(
      _STEPS, returns.min(axis=0), returns.max(axis=0), color=colour, alpha=0.2
    )
  right.set_ylim(0, 500)
  right.set_title("return, last 100 episodes", fontsize=11)
  for axes in (left, right):
    axes.set_xlabel("environment steps")
    axes.set_xticks([0, 250_000, 500_000], ["0", "250k", "500k"])
    axes.grid(alpha=0.3)
  left.legend(fontsize=8, loc="center right")
  right.legend(fontsize=8, loc="lower right")
  figure.savefig(output, dpi=120)


if __name__ == "__main__":
  main(*sys.argv[1:])
