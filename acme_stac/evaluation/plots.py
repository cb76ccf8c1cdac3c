"""Plots of a work directory (learning, metaparameters, ...) and of a sweep."""

import csv
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_stac.evaluation import drawing
from acme_stac.evaluation.text import printable

Columns = dict[str, np.ndarray]

_SIGMA = re.compile(r"sigma_(.+)_head(\d+)")
# How the papers write them.
SYMBOLS = {
  "discount": "γ",
  "lambda_": "λ",
  "value_cost": "g_v / outer g_v",
  "policy_cost": "g_p / outer g_p",
  "entropy_cost": "g_e / outer g_e",
  "alpha": "α",
  "alpha_rho": "α_ρ",
  "alpha_c": "α_c",
  "clip_threshold": "ρ̄ = c̄ / outer ρ̄",
}
_EPISODE_WINDOW = 100


def read_log(path: pathlib.Path, step: str | None = None) -> Columns:
  """Reads a log as columns of floats; text becomes NaN.

  Args:
    path: a CSV file; none or an empty one gives no columns.
    step: a column that grows. Where it falls back, a run was resumed from an
      older checkpoint, and the rows that were repeated are left out.

  Raises:
    OSError: if it cannot be read, or is not a regular file.
  """
  if not path.exists():
    return {}
  with open(regular(path), newline="") as file:
    # A row may be half written, where a process was killed or the disk full.
    rows = [
      row
      for row in csv.DictReader(file)
      if None not in row and None not in row.values()
      and (step is None or np.isfinite(number(row[step])))
    ]
  if step is not None:
    kept: list[dict[str, str]] = []
    for row in rows:
      while kept and float(kept[-1][step]) >= float(row[step]):
        kept.pop()
      kept.append(row)
    rows = kept
  if not rows:
    return {}
  return {name: np.array([number(r[name]) for r in rows]) for name in rows[0]}


def regular(path: pathlib.Path) -> pathlib.Path:
  """Returns the path of a file that can be read to its end.

  Raises:
    OSError: if it is no regular file: a pipe or a device would be read for
      ever.
  """
  if path.exists() and not path.is_file():
    raise OSError(f"{printable(path)} is not a regular file.")
  return path


def number(text: str) -> float:
  """Returns a number, or a truth value as one; NaN for other text."""
  try:
    return {"True": 1.0, "False": 0.0}[text] if text.isalpha() else float(text)
  except (KeyError, ValueError):
    return float("nan")


def plot_run(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Draws what the logs of a work directory hold.

  Returns:
    The files that were written, under plots/.
  """
  workdir = pathlib.Path(workdir)
  directory = workdir / "plots"
  learner = read_log(workdir / "logs" / "learner.csv", "learner_steps")
  evaluator = read_log(workdir / "logs" / "evaluator.csv", "learner_steps")
  figures = {
    "learning_curve.png": _learning_curve(workdir, learner, evaluator),
    "metaparameters.png": _metaparameters(workdir, learner),
    "metagradient.png": _metagradient(workdir, learner),
    "pipeline.png": _pipeline(workdir, learner),
  }
  written = []
  for name, figure in figures.items():
    if figure is None:
      continue
    directory.mkdir(exist_ok=True)
    written.append(_save(figure, directory / name))
  return written


def _save(figure: Figure, path: pathlib.Path) -> pathlib.Path:
  figure.savefig(regular(path), dpi=120)
  return path


def _described(workdir: pathlib.Path) -> tuple[str, str] | None:
  """Returns agent and task of a work directory, None if it does not say."""
  try:
    described = json.loads(regular(workdir / "config.json").read_text())
    agent, task = described["agent"], described["environment"]
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return printable(agent), printable(task).removeprefix("gymnasium:")


def _name(workdir: pathlib.Path) -> str:
  """Returns how a run is called: its agent and task, or else its directory."""
  described = _described(workdir)
  return " on ".join(described) if described else printable(workdir.name)


def plot_sweep(
  runs: Iterable[str], workdir: pathlib.Path
) -> pathlib.Path | None:
  """Draws the training returns of a sweep's runs over environment steps.

  Runs whose names differ in the last part alone share a panel.

  Args:
    runs: names of runs; those without a return yet are left out.
    workdir: each has its directory below this one.

  Returns:
    The file that was written, learning_curves.png, or None if there is nothing
    to draw.
  """
  panels: dict[str, dict[str, Columns]] = {}
  for run in runs:
    log = read_log(workdir / run / "logs" / "learner.csv", "learner_steps")
    if log and np.isfinite(log.get("episode_return", np.nan)).any():
      group, _, name = run.rpartition("/")
      panels.setdefault(group, {})[name] = log
  if not panels:
    return None
  figure, grid = drawing.panels(len(panels), height=3.0)
  names = list(dict.fromkeys(name for of in panels.values() for name in of))
  titles = {group: _common_name(workdir, group, panels[group])
            for group in panels}
  for axes, (group, logs) in zip(grid, panels.items(), strict=True):
    for name, log in logs.items():
      axes.plot(
        log["environment_steps"], log["episode_return"],
        label=printable(name), **drawing.line(name, names),
      )
    title = titles[group]
    if group and list(titles.values()).count(title) > 1:
      title = f"{title} ({printable(group)})"
    drawing.title(axes, title)
    drawing.steps_axis(axes)
    axes.set_ylabel(
      f"return, last {_EPISODE_WINDOW} episodes", fontsize="small"
    )
  drawing.legend(figure)
  return _save(figure, workdir / "learning_curves.png")


def _common_name(
  workdir: pathlib.Path, group: str, names: Iterable[str]
) -> str:
  """Returns what the runs of a panel have in common: agent and task, or one."""
  described = [_described(workdir / group / name) for name in names]
  if None in described:
    return printable(group)
  found = [list(dict.fromkeys(x)) for x in zip(*described, strict=True)]
  return " on ".join(x[0] for x in found if len(x) == 1) or printable(group)


def _learning_curve(workdir, learner: Columns, evaluator: Columns):
  """Draws episode returns of training and evaluation over steps."""
  if not learner:
    return None
  figure, (axes,) = drawing.panels(1, height=4.0)
  steps, returns = learner["environment_steps"], learner.get("episode_return")
  if returns is not None and np.isfinite(returns).any():
    axes.plot(
      steps, returns, color=drawing.BLUE,
      label=f"training, last {_EPISODE_WINDOW} episodes",
    )
  if evaluator:
    mean = evaluator["episode_return_mean"]
    how = "greedy" if evaluator["greedy"][-1] else "sampled"
    error = evaluator["episode_return_std"] / np.sqrt(evaluator["episodes"])
    axes.errorbar(
      evaluator["environment_steps"],
      mean,
      yerr=error,
      fmt="o--",
      capsize=3,
      color=drawing.VERMILION,
      label=f"evaluation ({how}), mean ± standard error",
    )
  axes.set_ylabel("episode return")
  drawing.title(axes, _name(workdir))
  drawing.steps_axis(axes)
  drawing.legend(figure)
  return figure


def sigmas(logs: Sequence[Columns]) -> dict[str, dict[int, str]]:
  """Returns the columns of σ(η) that all logs have: name -> head -> column."""
  found: dict[str, dict[int, str]] = {}
  for name in SYMBOLS:
    for column in sorted(logs[0]) if logs else ():
      match = _SIGMA.fullmatch(column)
      if match and match[1] == name and all(column in log for log in logs):
        found.setdefault(name, {})[int(match[2])] = column
  return found


def metaparameter_axes(panels: Mapping[str, Axes]):
  """Gives panels of σ(η) scales that do not make small changes look large.

  Args:
    panels: name of a metaparameter -> its panel; lines of "discount" are
      horizons.
  """
  for name, axes in panels.items():
    if name == "discount":
      drawing.horizon_axis(axes)
  drawing.sigma_axes(
    axes for name, axes in panels.items() if name != "discount"
  )


def _metaparameters(workdir: pathlib.Path, learner: Columns):
  """Draws σ(η) of every head over steps, one panel a name (Fig. 5a)."""
  found = sigmas([learner])
  if not found:
    return None
  figure, grid = drawing.panels(len(found), height=2.2)
  for axes, (name, heads) in zip(grid, found.items(), strict=True):
    for head, column in heads.items():
      values = learner[column]
      axes.plot(
        learner["environment_steps"],
        drawing.horizon(values) if name == "discount" else values,
        label=f"head {head}", **drawing.head(head),
      )
    drawing.title(axes, SYMBOLS[name])
    drawing.steps_axis(axes)
  metaparameter_axes(dict(zip(found, grid, strict=True)))
  figure.suptitle(
    f"Self-tuned metaparameters: {_name(workdir)}", fontsize="medium"
  )
  drawing.legend(figure)
  return figure


def _metagradient(workdir: pathlib.Path, learner: Columns):
  """Draws what makes the metagradient: γ, error, agreement of gradients.

  For one self-tuned γ and an outer policy gradient it factors so (Kao et al.,
  Figs. 4 and 5): how far returns exceed values on the outer experience, and
  whether the inner gradient and the outer one point the same way.
  """
  if "gradient_cosine" not in learner:
    return None
  steps = learner["environment_steps"]
  panels = {
    "outer loss's error: mean r + γ v′ − V": "outer_advantage",
    "cosine of inner and outer gradient": "gradient_cosine",
    "norm of the metagradient": "meta_gradient_norm",
  }
  gammas = sigmas([learner]).get("discount", {})
  figure, grid = drawing.panels(
    len(panels) + bool(gammas), height=1.8, columns=1
  )
  for axes, (title, name) in zip(grid, panels.items(), strict=False):
    axes.plot(
      steps, learner[name], ".", markersize=2, alpha=0.4, color=drawing.SKY
    )
    axes.plot(steps, _smooth(learner[name]), color=drawing.BLUE)
    axes.axhline(0.0, color="black", linewidth=0.5)
    drawing.title(axes, title)
  grid[1].set_ylim(-1.05, 1.05)
  if gammas:
    for head, column in gammas.items():
      grid[-1].plot(
        steps, drawing.horizon(learner[column]), label=f"head {head}",
        **drawing.head(head),
      )
    drawing.title(grid[-1], "γ")
    drawing.horizon_axis(grid[-1])
  for axes in grid:
    drawing.steps_axis(axes)
  figure.suptitle(f"Metagradient: {_name(workdir)}", fontsize="medium")
  drawing.legend(figure)
  return figure


def _smooth(values: np.ndarray) -> np.ndarray:
  """Returns a running mean over a twentieth of the values."""
  width = max(1, len(values) // 20)
  weights = np.convolve(np.ones_like(values), np.ones(width), "same")
  return np.convolve(values, np.ones(width), "same") / weights


def _pipeline(workdir: pathlib.Path, learner: Columns):
  """Draws rate, policy age, and where the learner waits."""
  if not learner:
    return None
  panels = (
    ("environment_steps_per_second", "environment steps/s"),
    ("policy_age_mean", "policy age (updates)"),
    ("queue_fill", "queue fill"),
    ("share_waiting_for_data", "learner waiting for data"),
  )
  figure, grid = drawing.panels(len(panels), height=2.2)
  for axes, (name, title) in zip(grid, panels, strict=True):
    if name in learner:
      axes.plot(
        learner["environment_steps"], learner[name], color=drawing.BLUE
      )
    drawing.title(axes, title)
    drawing.steps_axis(axes)
    axes.set_ylim(bottom=0)
  # Shares.
  for axes in grid[2:]:
    axes.set_ylim(0.0, 1.05)
  figure.suptitle(f"Pipeline: {_name(workdir)}", fontsize="medium")
  return figure
