"""Draws the figure of docs/agents.md: metagradients in a small corridor.

PYTHONPATH=. python docs/data/far_sighted/figure.py docs/images/myopia.png
"""

import sys
from typing import Any

from matplotlib.figure import Figure

from tests.support import myopia

_UPDATES = 400
_POLICY = {"outer_loss": "policy_gradient"}
_BOOTSTRAP = {"outer_loss": "bootstrap"}
# Label -> fields of the agent, colour and line style.
_AGENTS: dict[str, tuple[dict[str, Any], str, str]] = {
  "fixed γ": ({"meta_learning_rate": 0.0}, "0.4", ":"),
  "STAC's outer loss": ({}, "0.4", "-"),
  "outer policy loss": (_POLICY, "#d55e00", "-"),
  "the same, outer critic": (
    {**_POLICY, "outer_critic": True}, "#0072b2", "-"
  ),
  "bootstrap, L = 1": (_BOOTSTRAP, "#e69f00", "--"),
  "bootstrap, L = 16": (
    {**_BOOTSTRAP, "bootstrap_steps": 16}, "#cc79a7", "-."
  ),
  "bootstrap, L = 64": ({**_BOOTSTRAP, "bootstrap_steps": 64}, "#009e73", "-"),
}


def main(output: str) -> None:
  """Draws γ of the inner loss, and the returns."""
  figure = Figure(figsize=(9, 3.4), layout="constrained")
  left, right = figure.subplots(1, 2)
  for label, (fields, colour, line) in _AGENTS.items():
    curves = myopia.train(_UPDATES, **fields)
    look: dict[str, Any] = {"color": colour, "linestyle": line, "label": label}
    left.plot(curves.discount, **look)
    right.plot(curves.episode_return, **look)
  left.axhline(1 / myopia.REWARD**0.5, color="black", lw=0.6)
  left.set_title("γ of the inner loss", fontsize=11)
  right.set_title("expected return", fontsize=11)
  for axes in (left, right):
    axes.set_xlabel("updates")
    axes.grid(alpha=0.3)
  left.legend(fontsize=8, loc="center right")
  figure.savefig(output, dpi=120)


if __name__ == "__main__":
  main(*sys.argv[1:])
