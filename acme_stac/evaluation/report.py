"""One page about runs: tables, the papers' figures, and raw data beside."""

import base64
import html
import io
import json
import math
import pathlib
import re
import string
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from acme_stac.evaluation import (
  figures,
  plots,
  published,
  runs,
  scores,
  statistics,
)
from acme_stac.evaluation.runs import (
  NO_SETTINGS,
  OPTION,
  Groups,
  Run,
  Variation,
  label,
)
from acme_stac.evaluation.statistics import Estimate
from acme_stac.presets import AGENTS

_SUITES = {
  "atari": "Atari",
  "control": "DM control, features",
  "control_pixels": "DM control, pixels",
  "rwrl": "Real-World RL",
}
_OTHER_TASKS = "Small tasks"
_ABLATIONS = {
  agent for ladder in figures.LADDER.values() for agent in ladder.values()
} - {"impala", "impala_aux", "stac", "stacx"}
_STEPS, _SECONDS = "environment_steps", "seconds"
# Of a curve.
_POINTS = 50

_PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  margin: 0 auto; padding: 0 1rem 3rem; max-width: 60rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem;
  border-bottom: 1px solid #ccc; } h3 { font-size: 1.05rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .9rem; }
.table { overflow-x: auto; } table { border-collapse: collapse;
  font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
.text td { white-space: normal; overflow-wrap: normal; }
th { overflow-wrap: normal; }
.warning { background: #fff3cd; padding: .5rem .8rem; }
nav { columns: 14rem; font-size: .9rem; }
@media (max-width: 62rem) { th, td { padding: .2rem .3rem;
  white-space: normal; } }
@media (max-width: 40rem) { figure { overflow-x: auto; }
  img { max-width: none; width: 36rem; } table { font-size: .75rem; } }
@media print { body { max-width: none; font-size: 10pt; } nav { display: none; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .table { overflow: visible; } table { font-size: 7.5pt; }
  th, td { padding: .1rem .3rem; white-space: normal; } }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")


def suite_of(task: str) -> str:
  """Returns what a task is averaged with, as the papers do."""
  return _SUITES.get(task.partition(":")[0], _OTHER_TASKS)


def _slug(text: str) -> str:
  """Returns a part of a file's name."""
  return re.sub(r"[^A-Za-z0-9=_-]+", "_", text)[:80].strip("_")


class Report:
  """Makes the page and the files beside it."""

  def __init__(
    self,
    found: Sequence[Run],
    output: pathlib.Path,
    baseline: str = "impala",
    title: str = "Runs",
    say: Callable[[str], None] = lambda text: None,
    problems: Sequence[str] = (),
  ):
    """Takes the runs.

    Args:
      found: of `runs.find`.
      output: directory to write to.
      baseline: agent that others are compared with.
      title: of the page.
      say: is told what is being made.
      problems: what could not be read, of `runs.find`.

    Raises:
      ValueError: if no run has this agent's usual settings.
    """
    self._runs = found
    self._groups = Groups(found)
    self._output = output
    self._baseline = baseline
    self._title = title
    self._say = say
    self._problems = problems
    self._agents = self._groups.agents
    if baseline not in self._agents:
      raise ValueError(
        f"No run is of the baseline {baseline!r}. Agents of these runs:"
        f" {', '.join(self._agents) or 'none'}."
      )
    self._ranges = {
      task: self._range(task) for task in self._groups.tasks
    }
    self._horizons = {
      (task, axis): self._find_horizon(task, axis)
      for task in self._groups.tasks for axis in (_STEPS, _SECONDS)
    }
    self._parts: list[str] = []
    self._contents: list[str] = []
    self._written: list[pathlib.Path] = []

  def write(self) -> list[pathlib.Path]:
    """Writes index.html, PNG files and data/; returns the files."""
    self._output.mkdir(parents=True, exist_ok=True)
    self._overview()
    self._scores()
    self._curves()
    for suite in dict.fromkeys(map(self._suite, self._groups.tasks)):
      self._aggregates(suite)
    self._ablation()
    self._improvement()
    for setting in self._groups.perturbed():
      self._robustness(setting)
    self._metaparameters()
    self._run_time()
    self._published()
    contents = "".join(
      f'<a href="#{i}">{html.escape(name)}</a><br>'
      for i, name in enumerate(self._contents)
    )
    page = self._output / "index.html"
    page.write_text(_PAGE.substitute(
      title=html.escape(self._title),
      body=f"<nav>{contents}</nav>{''.join(self._parts)}",
    ), encoding="utf-8", errors="backslashreplace")
    data = runs.export(self._runs, self._output / "data")
    return [page, *self._written, *data]

  # Parts of a page.

  def _section(self, title: str):
    self._say(title)
    number = len(self._contents)
    self._contents.append(title)
    self._parts.append(f'<h2 id="{number}">{html.escape(title)}</h2>')

  def _text(self, text: str, kind: str = "note"):
    self._parts.append(f'<p class="{kind}">{html.escape(text)}</p>')

  def _table(
    self, head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = ""
  ):
    def line(cells: Sequence[Any], tag: str) -> str:
      inside = "".join(
        f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells
      )
      return f"<tr>{inside}</tr>"

    body = "".join(line(row, "td") for row in rows)
    self._parts.append(
      f'<div class="table"><table class="{kind}"><thead>{line(head, "th")}'
      f"</thead><tbody>{body}</tbody></table></div>"
    )

  def _figure(self, figure: Figure | None, name: str, caption: str):
    if figure is None:
      return
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    path = self._output / f"{_slug(name)}.png"
    number = 1
    while path in self._written:
      number += 1
      path = self._output / f"{_slug(name)}_{number}.png"
    path.write_bytes(buffer.getvalue())
    self._written.append(path)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    self._parts.append(
      f'<figure><img alt="{html.escape(caption)}"'
      f' src="data:image/png;base64,{encoded}">'
      f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )

  # Scores.

  def _option(self, task: str, name: str, default: Any = None) -> Any:
    """Returns an option of a task's environment."""
    for agent in self._agents:
      if self._groups.runs(task, agent):
        value = self._groups.usual(task, agent, OPTION + name)
        return default if value is None else value
    return default

  def _suite(self, task: str) -> str:
    """Returns the suite of a task, by protocol where returns depend on it."""
    suite = suite_of(task)
    if suite != _SUITES["atari"]:
      return suite
    return f"{suite}, protocol {self._option(task, 'protocol', 'papers')}"

  def _range(self, task: str) -> tuple[float, float] | None:
    """Returns the returns that count as 0 and 1 on a task without a scale."""
    if scores.has_scale(task):
      return None
    values = [
      v for run in self._runs if run.task == task
      for v in run.curves.get("episode_return", np.zeros(0))
    ]
    finite = [v for v in values if math.isfinite(v)]
    if not finite or max(finite) == min(finite):
      return (0.0, 1.0)
    return (min(finite), max(finite))

  def _normalised(self, task: str, value: Any) -> Any:
    ends = self._ranges[task]
    if ends is None:
      return scores.normalised(task, value)
    return (value - ends[0]) / (ends[1] - ends[0])

  def _horizon(self, task: str, axis: str) -> float:
    """Returns where a task's runs are compared, of `_find_horizon`."""
    return self._horizons[task, axis]

  def _find_horizon(self, task: str, axis: str) -> float:
    """Returns where finished runs of the usual settings are compared.

    In steps that is how far each of them has come, in seconds the median of the
    agent that needs least.
    """
    of_agents = [
      [float(run.curves[axis][-1]) for run in members]
      for agent in self._agents
      if (members := self._groups.finished(task, agent))
    ]
    summarise = min if axis == _STEPS else np.median
    return min(
      (float(summarise(ends)) for ends in of_agents), default=math.nan
    )

  def _returns(
    self,
    task: str,
    agent: str,
    variation: Variation = (),
    axis: str = _STEPS,
  ) -> np.ndarray:
    """Returns every counted run's return at the horizon, [seeds]."""
    return np.array([
      self._return(task, run, axis)
      for run in self._counted(task, agent, variation)
    ])

  def _counted(
    self, task: str, agent: str, variation: Variation = ()
  ) -> list[Run]:
    """Returns finished runs with a return; `_without_return` names others."""
    return [
      run for run in self._groups.finished(task, agent, variation)
      if math.isfinite(self._return(task, run))
    ]

  def _return(self, task: str, run: Run, axis: str = _STEPS) -> float:
    """Returns a run's return at the horizon, NaN if it has none."""
    # A varied run may have another budget.
    end = min(self._horizon(task, axis), run.curves[axis][-1])
    return run.value_at("episode_return", end, axis)

  def _matrix(
    self, tasks: Sequence[str], agents: Sequence[str]
  ) -> figures.Scores:
    """Returns normalised scores [seeds, tasks] of agents that have all tasks.

    With as many seeds as the task has that has fewest.
    """
    matrices = {}
    for agent in agents:
      columns = [
        self._normalised(task, self._returns(task, agent)) for task in tasks
      ]
      number = min(map(len, columns))
      if number:
        matrices[agent] = np.stack([x[:number] for x in columns], axis=1)
    return matrices

  # Sections.

  def _overview(self):
    self._section("Runs")
    finished = sum(run.finished for run in self._runs)
    self._text(
      f"{len(self._runs)} runs, {finished} finished, on"
      f" {len(self._groups.tasks)} tasks. Statistics are of finished runs;"
      " intervals are 95% of a stratified bootstrap over seeds."
    )
    rows: list[tuple] = []
    missing: list[str] = []
    for (task, agent, variation), members in self._groups.items():
      group = sorted(members, key=lambda run: run.seed)
      absent = sorted(
        set(self._expected(task, variation)) - {run.seed for run in group}
      )
      unfinished = [
        f"{run.seed} ({self._progress(run)})"
        for run in group if not run.finished
      ]
      if absent or unfinished:
        said = [f"{figures.short(task)}, {label(agent, variation)}:"]
        if absent:
          said.append(f"seeds {_listed(absent)} missing.")
        if unfinished:
          said.append(f"Unfinished: seed {_listed(unfinished)}.")
        missing.append(" ".join(said))
      done = [run.seed for run in group if run.finished]
      rows.append((
        figures.short(task), label(agent, variation), _listed(done),
        _listed(absent), ", ".join(unfinished),
      ))
    for text in (
      *self._problems, *self._absent_groups(), *missing, *self._repeated(),
      *self._without_return(), *self._unequal_budgets(),
      *self._unequal_settings(),
    ):
      self._text(text, "warning")
    self._table(
      ("task", "agent", "finished seeds", "missing seeds", "unfinished"),
      rows, "text",
    )

  def _absent_groups(self) -> Iterable[str]:
    """Yields agents that have runs on some tasks but none on others."""
    for agent in self._agents:
      absent = [
        figures.short(task) for task in self._groups.tasks
        if not self._groups.runs(task, agent)
      ]
      if absent:
        yield f"{agent} has no run on {_listed(absent)}."

  def _repeated(self) -> Iterable[str]:
    """Yields groups in which a seed counts more than once."""
    for (task, agent, variation), members in self._groups.items():
      seeds = [run.seed for run in members if run.finished]
      twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
      if twice:
        yield (
          f"{figures.short(task)}, {label(agent, variation)}: several runs have"
          f" seed {_listed(twice)}, and count as independent."
        )

  def _without_return(self) -> Iterable[str]:
    """Yields groups with finished runs that are in no statistics."""
    for (task, agent, variation), members in self._groups.items():
      seeds = [
        run.seed for run in members
        if run.finished and not math.isfinite(self._return(task, run))
      ]
      if seeds:
        yield (
          f"{figures.short(task)}, {label(agent, variation)}: seed"
          f" {_listed(seeds)} has no finite return at the end and is in no"
          " statistics, which are of the others alone."
        )

  def _unequal_settings(self) -> Iterable[str]:
    """Yields settings in which agents differ although their presets do not."""
    for task in self._groups.tasks:
      agents = [a for a in self._agents if self._groups.runs(task, a)]
      names = dict.fromkeys(
        name
        for agent in agents
        for run in self._groups.runs(task, agent)
        for name in run.settings
        if name not in NO_SETTINGS and not name.startswith(OPTION)
      )
      for name in names:
        values: dict[str, list[str]] = {}
        for agent in agents:
          if name not in AGENTS.get(agent, {}):
            value = json.dumps(self._groups.usual(task, agent, name))
            values.setdefault(value, []).append(agent)
        if len(values) > 1:
          said = "; ".join(
            f"{value} for {_listed(of)}" for value, of in values.items()
          )
          yield (
            f"{figures.short(task)}: agents differ in {name}, which their"
            f" presets do not say: {said}."
          )

  def _unequal_budgets(self) -> Iterable[str]:
    """Yields what is to be said of tasks whose runs end at different steps."""
    for task in self._groups.tasks:
      ends = {
        agent: min(run.steps[-1] for run in members)
        for agent in self._agents
        if (members := self._groups.finished(task, agent))
      }
      if ends and max(ends.values()) > 1.01 * min(ends.values()):
        first = min(ends, key=lambda agent: ends[agent])
        yield (
          f"{figures.short(task)}: runs end at different steps. All are"
          f" compared at {ends[first]:,.0f}, where the first of {first} ends;"
          " leave those out to compare the others at their own end."
        )
    for (task, agent, variation), members in self._groups.items():
      varied = [run.steps[-1] for run in members if run.finished]
      horizon = self._horizon(task, _STEPS)
      if variation and varied and min(varied) < horizon / 1.01:
        yield (
          f"{figures.short(task)}, {label(agent, variation)}: runs end at"
          f" {min(varied):,.0f} steps, before {horizon:,.0f}, where the others"
          " are compared. Their own end counts."
        )

  def _expected(self, task: str, variation: Variation) -> list[int]:
    """Returns the seeds that some agent has with the same variation."""
    names = {name for name, _ in variation}
    return sorted({
      run.seed
      for (other, _, varied), members in self._groups.items()
      if other == task and {name for name, _ in varied} == names
      for run in members
    })

  def _progress(self, run: Run) -> str:
    total = run.settings.get("num_environment_steps")
    if not len(run.steps) or not total:
      return "no rows yet"
    return f"{100 * run.steps[-1] / total:.0f}%"

  def _scores(self):
    self._section("Returns by task")
    self._text(
      "Means of the last 100 training episodes, sampled actions, with intervals"
      " over seeds: at equal environment steps, as the mean over all training"
      " up to there, and at equal training time (the median of the fastest"
      " agent; compilation is not part of it, and runs that have ended keep"
      " their last value). Evaluation: the last one of each run, at its end."
    )
    for task in self._groups.tasks:
      rows = []
      horizon = self._horizon(task, _STEPS)
      if not math.isfinite(horizon):
        continue
      for (of, agent, variation), _ in self._groups.items():
        if of != task:
          continue
        final = self._returns(task, agent, variation)
        if not len(final):
          continue
        members = self._counted(task, agent, variation)
        timed = self._returns(task, agent, variation, _SECONDS)
        evaluated = np.array([
          score for run in members
          if math.isfinite(score := run.figures.get("evaluation", math.nan))
        ])
        rows.append((
          label(agent, variation),
          len(final),
          statistics.mean_interval(final),
          statistics.mean_interval(np.array(
            [run.mean_return(horizon) for run in members]
          )),
          statistics.mean_interval(timed) if len(timed) else "",
          statistics.mean_interval(evaluated) if len(evaluated) else "",
        ))
      self._parts.append(f"<h3>{html.escape(figures.short(task))}</h3>")
      seconds = self._horizon(task, _SECONDS)
      self._table(
        (
          "agent", "seeds", f"at {horizon:,.0f} steps", "mean over training",
          f"at {seconds:,.0f} s", "evaluation",
        ),
        rows,
      )

  def _curves(self):
    self._section("Learning curves")
    agents = [agent for agent in self._agents if agent not in _ABLATIONS]
    panels: dict[str, dict[str, Sequence[Run]]] = {
      task: {agent: self._groups.runs(task, agent) for agent in agents}
      for task in self._groups.tasks
    }
    for axis, name in ((_STEPS, "steps"), (_SECONDS, "time")):
      self._figure(
        figures.learning_curves(panels, axis),
        f"learning_curves_{name}",
        f"Return over {axis.replace('_', ' ')} of training; means over seeds"
        " (their number in brackets) and 95% intervals. Dotted: unfinished.",
      )
    # Numbers that are perturbed alone have grids.
    grids = self._groups.perturbed()
    varied: dict[str, dict[str, Sequence[Run]]] = {}
    for (task, agent, variation), members in self._groups.items():
      if len(variation) > 1 or (variation and variation[0][0] not in grids):
        varied.setdefault(task, {})[label(agent, variation)] = members
    if varied:
      self._figure(
        figures.learning_curves(varied), "learning_curves_varied",
        "Return over environment steps of runs with other settings than the"
        " usual ones.",
      )

  def _aggregates(self, suite: str):
    tasks = [
      task for task in self._groups.tasks
      if self._suite(task) == suite
      and math.isfinite(self._horizon(task, _STEPS))
    ]
    if not tasks:
      return
    agents = [agent for agent in self._agents if agent not in _ABLATIONS]
    matrices = self._matrix(tasks, agents)
    self._section(f"All tasks together: {suite}")
    scales = {
      task: scores.describe_scale(task)
      if self._ranges[task] is None
      else "from the lowest to the highest return of these runs"
      for task in tasks
    }
    self._text(
      "Normalised scores: " + "; ".join(
        f"{figures.short(task)}: {scale}" for task, scale in scales.items()
      ) + "."
    )
    left_out = [agent for agent in agents if agent not in matrices]
    if left_out:
      self._text(
        "Without a finished run on some task, and left out:"
        f" {_listed(left_out)}."
      )
    several = {a: m for a, m in matrices.items() if len(m) > 1}
    for agent, matrix in matrices.items():
      counted = [len(self._counted(task, agent)) for task in tasks]
      if len(matrix) == 1:
        self._text(f"{agent} has one seed on some task, and is left out.")
      elif max(counted) > len(matrix):
        self._text(
          f"{agent}: the first {len(matrix)} seeds of each task, as one has no"
          " more."
        )
    if not several:
      self._text("One seed alone has no intervals: nothing is drawn.")
      return
    several_curves = {
      agent: np.stack([
        self._normalised(task, figures.curve(
          self._counted(task, agent)[: len(matrix)],
          "episode_return",
          np.linspace(0.0, self._horizon(task, _STEPS), _POINTS),
          _STEPS,
        ))
        for task in tasks
      ], axis=1)
      for agent, matrix in several.items()
    }
    aggregates = statistics.aggregate(several)
    slug = _slug(suite.lower())
    names = list(statistics.AGGREGATES)
    self._table(
      ("agent", "seeds × tasks", *names),
      [
        (agent, "×".join(map(str, several[agent].shape)),
         *[aggregates[agent][name] for name in names])
        for agent in several
      ],
    )
    self._figure(
      figures.aggregate_curves(several_curves, "mean normalised score"),
      f"training_{slug}",
      "Mean normalised score over tasks during training, 95% intervals.",
    )
    self._figure(
      figures.aggregates(aggregates), f"aggregates_{slug}",
      "Aggregates over tasks with 95% intervals; a smaller optimality gap is"
      " better.",
    )
    self._figure(
      figures.profiles(several), f"profiles_{slug}", "Performance profiles."
    )
    if self._baseline in several and len(several) > 1:
      estimates = statistics.probability_of_improvement(
        several, self._baseline
      )
      self._figure(
        figures.probabilities(estimates, self._baseline),
        f"probability_{slug}",
        "Probability that a run is better than one of the baseline: "
        + "; ".join(f"{agent} {found}" for agent, found in estimates.items())
        + ".",
      )

  def _ablation(self):
    ladder = [
      agent for of in figures.LADDER.values() for agent in of.values()
    ]
    tasks = [
      task for task in self._groups.tasks
      if any(
        len(self._returns(task, agent))
        for agent in _ABLATIONS & set(self._agents)
      )
    ]
    if not tasks:
      return
    bars = {
      figures.short(task): {
        agent: statistics.mean_interval(self._returns(task, agent))
        for agent in ladder
        if len(self._returns(task, agent))
      }
      for task in tasks
    }
    what = dict.fromkeys(bars, "return at the end")
    if len(tasks) > 1:
      together = f"{len(tasks)} tasks together"
      what[together] = "mean normalised score"
      bars[together] = {
        agent: found["mean"]
        for agent, found in statistics.aggregate(
          self._matrix(tasks, ladder)
        ).items()
      }
    self._section("What is self-tuned")
    self._figure(
      figures.ablation(bars, what), "ablation",
      "The ablation ladder: one head (green) and three (blue), with more and"
      " more self-tuned, and 95% intervals.",
    )
    self._text("Each step of a ladder over its own first one, in %:")
    rows = []
    for family, of in figures.LADDER.items():
      first = of["{}"]
      for step, agent in of.items():
        cells = [
          self._improved(task, agent, first) or ""
          for task in tasks
        ]
        if agent != first and any(cells):
          rows.append((f"{family} {step}", *cells))
    self._table(("", *map(figures.short, tasks)), rows)

  def _improved(
    self, task: str, agent: str, baseline: str
  ) -> Estimate | None:
    """Returns by how many per cent an agent improves on another, if it ran."""
    mine = self._returns(task, agent)
    theirs = self._returns(task, baseline)
    if not (len(mine) and len(theirs)):
      return None
    return statistics.relative_improvement(
      self._normalised(task, mine), self._normalised(task, theirs)
    )

  def _improvement(self):
    improvements: dict[str, dict[str, Estimate]] = {}
    for agent in self._agents:
      if agent == self._baseline:
        continue
      for task in self._groups.tasks:
        improved = self._improved(task, agent, self._baseline)
        if improved is not None:
          improvements.setdefault(agent, {})[task] = improved
    if not improvements:
      return
    baseline = self._baseline
    self._section(f"Improvement over {baseline}")
    shown = {
      agent: of
      for agent, of in improvements.items()
      if agent not in _ABLATIONS
    } or improvements
    self._figure(
      figures.relative_improvement(shown, baseline), "relative_improvement",
      f"Relative improvement of the normalised score over {baseline} with 95%"
      " intervals; where some are beyond ±50%, logarithmic beyond ±10%.",
    )
    tasks = dict.fromkeys(task for of in improvements.values() for task in of)
    self._table(
      ("%", *map(figures.short, tasks)),
      [
        (agent, *[of.get(task, "") for task in tasks])
        for agent, of in improvements.items()
      ],
    )
    self._figure(
      figures.improved_tasks(shown, baseline), "improved_tasks",
      f"Tasks on which the mean score improves on {baseline} by at least x%.",
    )

  def _robustness(self, setting: str):
    values = self._groups.perturbed()[setting]
    cells: dict[str, dict[Any, dict[str, Estimate]]] = {}
    for task in self._groups.tasks:
      varied = {
        agent
        for (of, agent, variation), _ in self._groups.items()
        if of == task and [name for name, _ in variation] == [setting]
      }
      if not varied:
        continue
      of_task: dict[Any, dict[str, Estimate]] = {}
      for value in values:
        for agent in self._agents:
          if agent not in varied:
            continue
          usual = self._groups.usual(task, agent, setting) == value
          returns = self._returns(
            task, agent, () if usual else ((setting, value),)
          )
          if len(returns):
            of_task.setdefault(value, {})[agent] = statistics.mean_interval(
              returns
            )
      if of_task:
        cells[task] = of_task
    if not cells:
      return
    self._section(f"Robustness: {setting}")
    for agent in self._agents:
      pairs = [
        (cell[agent].value, cell[self._baseline].value)
        for of in cells.values()
        for cell in of.values()
        if agent in cell and self._baseline in cell
      ]
      if pairs and agent != self._baseline:
        better = sum(mine > theirs for mine, theirs in pairs)
        self._text(
          f"{agent} has the higher mean than {self._baseline} in {better} of"
          f" {len(pairs)} configurations ({100 * better / len(pairs):.0f}%)."
        )
    ranges = {
      self._groups.usual(task, agent, "metaparameter_range")
      for task, of in cells.items()
      for agents in of.values()
      for agent in agents
    }
    self._figure(
      figures.robustness(
        cells, setting,
        lambda value: figures.describe_setting(setting, value, ranges),
      ),
      f"robustness_{setting}",
      f"Final return with {setting} perturbed, means and 95% intervals.",
    )

  def _metaparameters(self):
    self._section("Metaparameters over training")
    drawn = False
    rows: list[tuple] = []
    perturbed: list[tuple] = []
    for (task, agent, variation), _ in self._groups.items():
      members = self._groups.finished(task, agent, variation)
      if not members or (variation and len(members) < 2):
        continue
      changes = _changes(task, label(agent, variation), members)
      (perturbed if variation else rows).extend(changes)
      if variation or agent in _ABLATIONS:
        continue
      title = f"{figures.short(task)}, {agent}, {len(members)} seeds"
      slug = figures.short(task)
      figure = figures.metaparameters(members, title)
      drawn |= figure is not None
      self._figure(
        figure, f"metaparameters_{slug}_{agent}",
        f"σ(η) of every head, {title}: means, and from the lowest seed to the"
        " highest.",
      )
      self._figure(
        figures.alpha_order(members, title), f"alpha_order_{slug}_{agent}",
        f"α_ρ and α_c, {title}.",
      )
      shares = figures.alpha_order_share(members)
      if shares:
        self._text("Rows of the logs with α_ρ ≥ α_c: " + ", ".join(
          f"head {head} {share.shown('.1%')}" for head, share in shares.items()
        ) + ".")
    if rows:
      self._text(
        "σ(η) at the end of training, means and intervals over seeds. Apart:"
        " seeds whose auxiliary heads are all on one side of the acting head."
      )
      head = (
        "task, agent", "σ(η) of", "acting head, start", "acting head, end",
        "auxiliary heads, end", "apart",
      )
      self._table(head, rows)
      if perturbed:
        self._parts.append(
          "<details><summary>With settings perturbed</summary>"
        )
        self._table(head, perturbed)
        self._parts.append("</details>")
    elif not drawn:
      self._text("No finished run tunes any.")

  def _run_time(self):
    self._section("Run time")
    rows = []
    for task in self._groups.tasks:
      rates = {
        agent: np.array([run.figures["steps_per_second"] for run in members])
        for agent in self._agents
        if (members := self._groups.finished(task, agent))
      }
      for agent, of_agent in rates.items():
        rate = np.median(of_agent)
        members = self._groups.finished(task, agent)
        minutes = np.median(
          [run.figures["training_seconds"] / 60 for run in members]
        )
        ratio = np.median(rates.get(self._baseline, math.nan)) / rate
        rows.append((
          f"{figures.short(task)}, {agent}", f"{rate:,.0f}",
          f"{min(of_agent):,.0f} to {max(of_agent):,.0f}", f"{minutes:.2f}",
          f"{ratio:.2f}",
        ))
    self._text(
      "Medians over seeds, on whatever machine and beside whatever else they"
      " ran; compare only runs that ran alike. Where the lowest and the highest"
      " rate are far apart, time says more of the machine than of the agent."
    )
    self._table(
      (
        "task, agent", "steps/s", "lowest to highest", "minutes",
        f"time / {self._baseline}",
      ),
      rows,
    )

  def _published(self):
    self._section("Published numbers")
    games = [task for task in self._groups.tasks if suite_of(task) == "Atari"]
    for task in games:
      self._published_game(task)
    self._text(
      "What the paper of STACX reports, in its protocols (Atari with the"
      " protocol “papers”)."
    )
    self._table(
      ("agent", "measure", "value", "source"), published.FIGURES, "text"
    )
    for protocol in published.PROTOCOLS:
      self._parts.append(
        f"<h3>Atari-57, protocol “{protocol}”: median of published scores</h3>"
      )
      self._table(
        ("agent", "median, human-normalised", "source"),
        [
          (column.agent, f"{100 * median:.0f}%", column.source)
          for column, median in published.medians(protocol).items()
        ],
        "text",
      )
    self._text(published.REMARK)

  def _published_game(self, task: str):
    game = scores.game_of(task)
    if game is None:
      return
    protocol = self._option(task, "protocol", "papers")
    if protocol not in published.PROTOCOLS:
      return
    rows = []
    for agent in self._agents:
      members = self._counted(task, agent)
      if not members:
        continue
      returns = statistics.mean_interval(
        np.array([run.figures["final_return"] for run in members])
      )
      frames = min(run.steps[-1] for run in members)
      rows.append((
        f"{agent}, these runs: training, sampled actions,"
        f" {frames / 1e6:.3g}M frames",
        str(returns),
        f"{100 * scores.human_normalised_score(game, returns.value):.1f}%", "",
      ))
    for column, value in published.returns(game, protocol).items():
      rows.append((
        f"{column.agent}, 200M frames", f"{value:.4g}",
        f"{100 * scores.human_normalised_score(game, value):.1f}%",
        column.source,
      ))
    self._parts.append(
      f"<h3>{html.escape(game)}, protocol “{html.escape(protocol)}”</h3>"
    )
    self._table(
      ("agent", "return", "human-normalised", "source"), rows, "text"
    )


def _listed(items: Iterable[Any]) -> str:
  return ", ".join(map(str, items))


def _changes(task: str, name: str, members: Sequence[Run]) -> list[tuple]:
  """Returns rows on where the metaparameters of a group's heads end."""
  rows = []
  for parameter, heads in plots.sigmas([run.curves for run in members]).items():
    ends = np.array([
      [run.curves[column][-1] for column in heads.values()] for run in members
    ])
    start = np.mean([run.curves[heads[0]][0] for run in members])
    auxiliary = ends[:, 1:]
    apart = ""
    if auxiliary.shape[1]:
      signs = np.sign(auxiliary - ends[:, :1])
      lower = int((signs < 0).all(axis=1).sum())
      higher = int((signs > 0).all(axis=1).sum())
      apart = f"{lower} lower, {higher} higher of {len(ends)}"
    rows.append((
      f"{figures.short(task)}, {name}",
      plots.SYMBOLS[parameter],
      f"{start:.4f}",
      statistics.mean_interval(ends[:, 0]).shown(".4f"),
      statistics.mean_interval(auxiliary.mean(axis=1)).shown(".4f")
      if auxiliary.shape[1] else "",
      apart,
    ))
  return rows
