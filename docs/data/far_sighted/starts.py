"""Draws the returns from every start, and prints the tables about them.

For docs/data/results.md:

PYTHONPATH=. python docs/data/far_sighted/starts.py docs/images/far_sighted.png
"""

import pathlib
import sys

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from acme_stac.evaluation import statistics

# Directory of a start in configs/sweeps/far_sighted.py:small -> its title.
_STARTS = {
  "": "base",
  "entropy_cost=0.002": "g_e / 5",
  "entropy_cost=0.05": "g_e × 5",
  "discount=0.975": "horizon / 5",
  "discount=0.999": "horizon × 5",
  "value_cost=0.05": "g_v / 5",
  "value_cost=1.25": "g_v × 5",
}
_AGENTS = {
  "impala": "IMPALA",
  "impala_aux": "three heads, fixed",
  "stacx": "STACX",
  "stacx_no_kl": "STACX, g_kl = 0",
  "stacx_outer_critic": "outer critic",
  "stacx_bootstrap_1": "bootstrap, L = 1",
  "stacx_bootstrap_4": "bootstrap, L = 4",
  "stacx_bootstrap_outer_critic": "bootstrap, outer critic",
  "stacx_double": "range “double”",
}


def _read() -> pd.DataFrame:
  """Returns the last row of every run, by agent and start."""
  folder = pathlib.Path(__file__).parent / "runs"
  runs = pd.read_csv(folder / "runs.csv")
  curves = pd.read_csv(folder / "curves.csv").drop(columns="episode_return")
  parts = runs.name.str.extract(r"/breakout/(?:(.*=.*)/)?(\w+)/\d$")
  runs[["start", "agent"]] = parts.fillna("").to_numpy()
  return runs.merge(curves.groupby("run").last(), on="run")


def _row(cells: list[str]) -> str:
  return f"| {' | '.join(cells)} |"


def _tables(runs: pd.DataFrame, returns: dict[str, np.ndarray]) -> str:
  """Returns tables in Markdown: returns, and g_p and γ at the end."""
  pooled = statistics.aggregate(returns)
  lines = [
    _row(["", *_STARTS.values(), "mean of all", "interquartile mean"]),
    "|---" * (len(_STARTS) + 3) + "|",
  ]
  for agent, label in _AGENTS.items():
    means = [f"{mean:.1f}" for mean in returns[agent].mean(axis=0)]
    both = [
      f"{x.value:.1f} [{x.low:.1f}, {x.high:.1f}]"
      for x in (pooled[agent]["mean"], pooled[agent]["interquartile mean"])
    ]
    lines.append(_row([label, *means, *both]))
  starts = _row(["", *_STARTS.values()])
  lines += ["", starts, "|---" * (len(_STARTS) + 1) + "|"]
  ends = runs.groupby(["agent", "start"]).mean(numeric_only=True)
  ends = ends.dropna(subset="sigma_discount_head0")
  for agent, label in _AGENTS.items():
    if agent not in ends.index:
      continue
    end = ends.loc[agent].reindex(_STARTS)
    cells = zip(
      end.sigma_policy_cost_head0, end.sigma_discount_head0, strict=True
    )
    lines.append(_row([
      label, *[f"{cost:.2f}, {gamma:.4f}" for cost, gamma in cells]
    ]))
  return "\n".join(lines)


def main(output: str) -> None:
  """Draws a panel per start, and the means over all of them."""
  runs = _read()
  returns = {
    agent: np.stack([
      runs[(runs.agent == agent) & (runs.start == start)].final_return
      for start in _STARTS
    ], axis=1)
    for agent in _AGENTS
  }
  print(_tables(runs, returns))
  figure = Figure(figsize=(13, 3.2), layout="constrained")
  panels = figure.subplots(
    1, len(_STARTS) + 1, sharey=True, width_ratios=[1] * len(_STARTS) + [2]
  )
  highest = max(values.max() for values in returns.values())
  pooled = statistics.aggregate(returns)
  for place, (agent, values) in enumerate(returns.items()):
    colour = "0.4" if agent.startswith("impala") else "#0072b2"
    for axes, seeds in zip(panels[:-1], values.T, strict=True):
      axes.plot(seeds, [place] * len(seeds), "o", color=colour, alpha=0.5, ms=5)
      axes.plot(seeds.mean(), place, "|", color=colour, ms=16, mew=2)
    mean = pooled[agent]["mean"]
    panels[-1].plot([mean.low, mean.high], [place, place], color=colour)
    panels[-1].plot(mean.value, place, "|", color=colour, ms=16, mew=2)
  titles = [*_STARTS.values(), "all starts: mean, 95% interval"]
  for axes, title in zip(panels, titles, strict=True):
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
  for axes in panels[:-1]:
    axes.set_xlim(0, 1.05 * highest)
  panels[0].set_yticks(range(len(_AGENTS)), list(_AGENTS.values()))
  panels[0].invert_yaxis()
  figure.supxlabel(
    "return of the last 100 episodes (dots: seeds; bars: means; grey: nothing"
    " tuned)", fontsize=10,
  )
  figure.savefig(output, dpi=120)


if __name__ == "__main__":
  main(*sys.argv[1:])
