"""Plots of one work directory, and of the runs of a sweep."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_stac.evaluation import logs
from acme_stac.evaluation.figures import metaparameters, styles
from acme_stac.evaluation.text import printable

# Title of a panel -> column of the learner's log.
_METAGRADIENT = {
  "outer loss's error: mean r + γ v′ − V": "outer_advantage",
  "cosine of inner and outer gradient": "gradient_cosine",
  "norm of the metagradient": "meta_gradient_norm",
}
_PIPELINE = {
  "environment steps/s": "environment_steps_per_second",
  "policy age (updates)": "policy_age_mean",
  "learner waiting for data": "share_waiting_for_data",
}
_ACTORS_WAITING = "actors waiting for the learner"
# Columns of an actor's log that add up to this.
_WAITING = ["share_waiting_for_learner", "share_blocked_by_queue"]
_SHARES = ("learner waiting for data", _ACTORS_WAITING)


def plot_run(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Draws the logs of a work directory.

  Returns:
    The files written, under plots/; none if there is no log yet.

  Raises:
    OSError: if a log cannot be read or a plot cannot be written.
  """
  learner = logs.read_learner(workdir)
  if learner.empty:
    return []
  described = _described(workdir)
  name = " on ".join(described) if described else printable(workdir.name)
  evaluator = logs.read_evaluator(workdir)
  figures = {
    "learning_curve.png": _learning_curve(name, learner, evaluator),
    "metaparameters.png": metaparameters.metaparameters(
      [learner], f"Self-tuned metaparameters: {name}"
    ),
    "metagradient.png": _metagradient(name, learner),
    "pipeline.png": _pipeline(name, learner, logs.read_actors(workdir)),
  }
  (workdir / "plots").mkdir(exist_ok=True)
  return [
    _save(figure, workdir / "plots" / file)
    for file, figure in figures.items() if figure is not None
  ]


def _save(figure: Figure, path: pathlib.Path) -> pathlib.Path:
  styles.save(figure, path, dpi=120)
  return path


class _Described(NamedTuple):
  """What a run is of."""

  agent: str
  task: str


def _described(workdir: pathlib.Path) -> _Described | None:
  """Returns the agent and task of a work directory, None if not recorded."""
  path = workdir / "config.json"
  if not path.exists():
    return None
  described = json.loads(logs.read_text(path))
  task = printable(described["environment"]).removeprefix("gymnasium:")
  return _Described(printable(described["agent"]), task)


def plot_sweep(
  runs: Iterable[str], workdir: pathlib.Path
) -> pathlib.Path | None:
  """Draws the training returns of a sweep's runs over environment steps.

  Runs whose names differ only in the last part share a panel, and panels of
  one task a y-axis.

  Args:
    runs: names of runs; those without a return yet are left out.
    workdir: directory of the sweep, which contains the runs' directories.

  Returns:
    The file that was written, learning_curves.png, or None if there is nothing
    to draw.
  """
  panels: dict[str, dict[str, pd.DataFrame]] = {}
  for run in runs:
    log = logs.read_learner(workdir / run)
    if "episode_return" in log and log["episode_return"].notna().any():
      group, _, name = run.rpartition("/")
      panels.setdefault(group, {})[name] = log
  if not panels:
    return None
  figure, grid = styles.panels(len(panels), height=3.0)
  names = list(dict.fromkeys(name for of in panels.values() for name in of))
  described = {
    group: [_described(workdir / group / name) for name in of]
    for group, of in panels.items()
  }
  titles = {
    group: _common_name(found) or printable(group)
    for group, found in described.items()
  }
  for axes, (group, of_group) in zip(grid, panels.items(), strict=True):
    for name, log in of_group.items():
      axes.plot(
        log["environment_steps"], log["episode_return"],
        label=f"seed {name}" if name.isdecimal() else printable(name),
        **styles.line(name, names),
      )
    title = titles[group]
    if group and list(titles.values()).count(title) > 1:
      title = f"{title} ({printable(group)})"
    styles.title(axes, title)
    styles.steps_axis(axes)
    styles.returns_axis(axes)
  by_task: dict[str, list[Axes]] = {}
  for axes, found in zip(grid, described.values(), strict=True):
    tasks = {one.task for one in found if one}
    if len(tasks) == 1:
      by_task.setdefault(tasks.pop(), []).append(axes)
  for alike in by_task.values():
    styles.share_y_limits(alike)
  styles.legend(figure)
  return _save(figure, workdir / "learning_curves.png")


def _common_name(described: Sequence[_Described | None]) -> str:
  """Returns the agent and task that runs share, empty without any."""
  known = [one for one in described if one is not None]
  if len(known) < len(described):
    return ""
  found = [set(values) for values in zip(*known, strict=True)]
  return " on ".join(of.pop() for of in found if len(of) == 1)


def _learning_curve(
  name: str, learner: pd.DataFrame, evaluator: pd.DataFrame
) -> Figure:
  """Draws episode returns of training and evaluation over steps."""
  figure, (axes,) = styles.panels(1, height=4.0)
  if "episode_return" in learner and learner["episode_return"].notna().any():
    axes.plot(
      learner["environment_steps"], learner["episode_return"],
      color=styles.BLUE,
      label=f"training, last {styles.EPISODE_WINDOW} episodes",
    )
  if not evaluator.empty:
    how = "greedy" if evaluator["greedy"].iloc[-1] else "sampled"
    axes.errorbar(
      evaluator["environment_steps"], evaluator["episode_return_mean"],
      yerr=evaluator["episode_return_std"] / np.sqrt(evaluator["episodes"]),
      fmt="o--", capsize=3, color=styles.VERMILION,
      label=f"evaluation ({how}), mean ± standard error",
    )
  if not axes.lines:
    axes.text(
      0.5, 0.5, "no episode has ended yet", transform=axes.transAxes,
      ha="center", va="center",
    )
  axes.set_ylabel("episode return")
  styles.title(axes, name)
  styles.steps_axis(axes)
  styles.legend(figure)
  return figure


def _metagradient(name: str, learner: pd.DataFrame) -> Figure | None:
  """Draws the factors of the metagradient, and γ below them.

  For one self-tuned γ and an outer policy gradient, these are how far returns
  exceed values on the outer experience, and whether the inner and the outer
  gradient point the same way (Kao et al., Figs. 4 and 5).
  """
  if "gradient_cosine" not in learner:
    return None
  steps = learner["environment_steps"]
  gammas = logs.sigma_columns([learner]).get("discount", {})
  figure, grid = styles.panels(
    len(_METAGRADIENT) + bool(gammas), height=1.8, columns=1
  )
  for axes, (title, column) in zip(grid, _METAGRADIENT.items(), strict=False):
    values = learner[column]
    axes.plot(steps, values, ".", markersize=2, alpha=0.4, color=styles.SKY)
    window = max(1, len(values) // 20)
    axes.plot(
      steps, values.rolling(window, center=True, min_periods=1).mean(),
      color=styles.BLUE,
    )
    axes.axhline(0.0, color="black", linewidth=0.5)
    styles.title(axes, title)
  grid[1].set_ylim(-1.05, 1.05)
  for head, column in gammas.items():
    grid[-1].plot(
      steps, metaparameters.as_drawn("discount", learner[column]),
      label=f"head {head}", **styles.head(head),
    )
  if gammas:
    styles.title(grid[-1], "γ")
    metaparameters.horizon_axis(grid[-1])
  for axes in grid:
    styles.steps_axis(axes)
  figure.suptitle(f"Metagradient: {name}", fontsize="medium")
  styles.legend(figure)
  return figure


def _pipeline(
  name: str, learner: pd.DataFrame, actors: Sequence[pd.DataFrame]
) -> Figure | None:
  """Draws the step rate, the policy age, and how long parts wait."""
  steps = learner["environment_steps"]
  lines = {
    title: (steps, learner[column])
    for title, column in _PIPELINE.items() if column in learner
  }
  actors = [table for table in actors if set(_WAITING) <= set(table)]
  if actors:
    lines[_ACTORS_WAITING] = _waiting(actors, steps.iloc[-1])
  if not lines:
    return None
  figure, grid = styles.panels(len(lines), height=2.2)
  for axes, (title, line) in zip(grid, lines.items(), strict=True):
    axes.plot(*line, color=styles.BLUE)
    styles.title(axes, title)
    styles.steps_axis(axes)
    axes.set_ylim(0.0, 1.05 if title in _SHARES else None)
  figure.suptitle(f"Pipeline: {name}", fontsize="medium")
  return figure


def _waiting(
  actors: Sequence[pd.DataFrame], end: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the mean share of time that actors wait, over environment steps.

  An actor logs only its own steps, from 0 again after a restart. Its rows are
  placed as if it made the same share of all steps throughout.

  Args:
    actors: logs of the actors.
    end: environment steps of the run.

  Returns:
    Environment steps and shares, each [K].
  """
  places = []
  for table in actors:
    made = logs.over_lives(table["actor_environment_steps"])
    places.append(end * made.to_numpy() / made.iloc[-1])
  x = max(places, key=len)
  shares = [
    np.interp(x, place, table[_WAITING].sum(axis=1))
    for place, table in zip(places, actors, strict=True)
  ]
  return x, np.mean(shares, axis=0)
