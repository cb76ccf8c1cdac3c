"""One page about runs: tables, the papers' figures, and raw data beside."""

import json
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from acme_stac.evaluation import (
  figures,
  plots,
  published,
  runs,
  scores,
  statistics,
)
from acme_stac.evaluation.page import Page, slug
from acme_stac.evaluation.runs import (
  NO_SETTINGS,
  OPTION,
  Groups,
  Run,
  Variation,
  label,
)
from acme_stac.evaluation.statistics import Estimate
from acme_stac.evaluation.text import counted, listed, named_seeds, range_of
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

# Up to here warnings are shown without a click.
_FEW_WARNINGS = 3
# Up to here intervals of a bootstrap are said to be too narrow.
_FEW_SEEDS = 10


def suite_of(task: str) -> str:
  """Returns what a task is averaged with, as the papers do."""
  return _SUITES.get(task.partition(":")[0], _OTHER_TASKS)


class Report:
  """Makes the page and the files beside it."""

  def __init__(
    self,
    found: Sequence[Run],
    output: pathlib.Path,
    baseline: str | None = None,
    title: str = "",
    say: Callable[[str], None] = lambda text: None,
    problems: Sequence[str] = (),
  ):
    """Takes the runs.

    Args:
      found: of `runs.find`.
      output: directory to write to.
      baseline: agent that others are compared with; if None impala, or the
        first agent if no run is of that.
      title: of the page; empty for one of the agents and tasks.
      say: is told what is being made.
      problems: what could not be read, of `runs.find`.

    Raises:
      ValueError: if no run has this agent's usual settings.
    """
    self._runs = found
    self._groups = Groups(found)
    self._output = output
    self._say = say
    self._problems = problems
    self._agents = self._groups.agents
    if baseline is None:
      impala = "impala" in self._agents or not self._agents
      baseline = "impala" if impala else self._agents[0]
    self._baseline = baseline
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
    self._title = title.strip() or _title(
      self._agents, [figures.short(task) for task in self._groups.tasks]
    )
    self._page = Page(output)

  def write(self) -> list[pathlib.Path]:
    """Writes index.html, PNG files and data/; returns the files."""
    self._output.mkdir(parents=True, exist_ok=True)
    self._answer()
    self._curves()
    self._details()
    for suite in dict.fromkeys(map(self._suite, self._groups.tasks)):
      self._aggregates(suite)
    self._improvement()
    self._ablation()
    for setting in self._groups.perturbed():
      self._robustness(setting)
    self._metaparameters()
    self._run_time()
    self._published()
    self._inventory()
    page = self._page.write(self._title)
    data = runs.export(self._runs, self._output / "data")
    return [page, *self._page.written, *data]

  def _section(self, title: str):
    self._say(title)
    self._page.section(title)

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

  def _answer(self):
    """Adds what most readers look for: agents by tasks, and what limits it."""
    self._section("Return at the end of training")
    tasks = [
      task for task in self._groups.tasks
      if any(len(self._returns(task, agent)) for agent in self._agents)
    ]
    number = sum(run.finished for run in self._runs)
    self._page.text(
      f"{counted(len(self._runs), 'run')}, {number:,} finished, on"
      f" {counted(len(self._groups.tasks), 'task')}."
    )
    if tasks:
      agents = [
        agent for agent in self._agents
        if any(len(self._returns(task, agent)) for task in tasks)
      ]
      of_seeds = sorted({
        len(of) for task in tasks for agent in agents
        if len(of := self._returns(task, agent))
      })

      def cell(task: str, agent: str) -> Any:
        returns = self._returns(task, agent)
        if not len(returns):
          return "–"
        estimate = statistics.mean_interval(returns)
        if len(of_seeds) == 1:
          return estimate
        return (estimate, counted(len(returns), "seed"))

      names = {
        task: f"{figures.short(task)}, {self._horizon(task, _STEPS):,.0f} steps"
        for task in tasks
      }
      # The longer list goes down the page.
      if len(tasks) > len(agents):
        head = ("task", *agents)
        rows = [
          (names[task], *[cell(task, agent) for agent in agents])
          for task in tasks
        ]
      else:
        head = ("agent", *names.values())
        rows = [
          (agent, *[cell(task, agent) for task in tasks]) for agent in agents
        ]
      self._page.table(head, rows, "answer")
      over = (
        f"Means over {range_of(of_seeds, 'seed')}" if of_seeds[-1] > 1
        else "Means of one seed's"
      )
      self._page.text(
        f"{over}{' of the' if of_seeds[-1] > 1 else ''} last 100 training"
        " episodes (sampled actions, the tasks' own units), of finished runs"
        f" with their usual settings. {_about_intervals(of_seeds)}"
      )
    else:
      self._page.text("No run is finished yet: there is nothing to compare.")
    warnings = [
      *self._problems, *self._absent_groups(), *self._missing(),
      *self._repeated(), *self._without_return(), *self._unequal_budgets(),
      *self._unequal_settings(),
    ]
    if len(warnings) > _FEW_WARNINGS:
      self._page.fold(f"{len(warnings)} warnings about these runs")
    for text in warnings:
      self._page.text(text, "warning")
    if len(warnings) > _FEW_WARNINGS:
      self._page.unfold()

  def _absent(
    self, task: str, variation: Variation, members: Sequence[Run]
  ) -> list[int]:
    """Returns the seeds that other agents have and a group has not."""
    return sorted(
      set(self._expected(task, variation)) - {run.seed for run in members}
    )

  def _unfinished(self, members: Sequence[Run]) -> list[str]:
    return [
      f"{run.seed} ({self._progress(run)})"
      for run in sorted(members, key=lambda run: run.seed) if not run.finished
    ]

  def _missing(self) -> Iterable[str]:
    """Yields groups with missing seeds or unfinished runs."""
    for (task, agent, variation), members in self._groups.items():
      absent = self._absent(task, variation, members)
      unfinished = self._unfinished(members)
      if absent or unfinished:
        said = [f"{figures.short(task)}, {label(agent, variation)}:"]
        if absent:
          said.append(f"{named_seeds(absent)} missing.")
        if unfinished:
          plural = "s" if len(unfinished) > 1 else ""
          said.append(f"Unfinished: seed{plural} {listed(unfinished)}.")
        yield " ".join(said)

  def _inventory(self):
    """Adds which seeds there are, folded."""
    self._section("Runs")
    rows = []
    for (task, agent, variation), members in self._groups.items():
      done = [run.seed for run in members if run.finished]
      absent = self._absent(task, variation, members)
      rows.append((
        figures.short(task), label(agent, variation),
        f"{len(done)} of {len(members)}",
        named_seeds(done) if done else "",
        named_seeds(absent) if absent else "",
        listed(self._unfinished(members)),
      ))
    head = ["task", "agent", "finished", "finished seeds", "missing",
            "unfinished seeds"]
    # Columns that say nothing of any group are left out.
    kept = [
      i for i in range(len(head)) if i < 3 or any(row[i] for row in rows)
    ]
    self._page.fold(
      f"Seeds of {counted(len(rows), 'group')} of runs: which are finished,"
      " missing and unfinished"
    )
    self._page.table(
      [head[i] for i in kept], [[row[i] for i in kept] for row in rows], "text"
    )
    self._page.unfold()

  def _absent_groups(self) -> Iterable[str]:
    """Yields agents that have runs on some tasks but none on others."""
    for agent in self._agents:
      absent = [
        figures.short(task) for task in self._groups.tasks
        if not self._groups.runs(task, agent)
      ]
      if absent:
        yield f"{agent} has no run on {listed(absent)}."

  def _repeated(self) -> Iterable[str]:
    """Yields groups in which a seed counts more than once."""
    for (task, agent, variation), members in self._groups.items():
      seeds = [run.seed for run in members if run.finished]
      twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
      if twice:
        yield (
          f"{figures.short(task)}, {label(agent, variation)}: several runs have"
          f" {named_seeds(twice)}, and count as independent."
        )

  def _without_return(self) -> Iterable[str]:
    """Yields groups with finished runs that are in no statistics."""
    for (task, agent, variation), members in self._groups.items():
      without = [
        run.seed for run in members
        if run.finished and not math.isfinite(self._return(task, run))
      ]
      if without:
        yield (
          f"{figures.short(task)}, {label(agent, variation)}: no finite return"
          f" at the end of {named_seeds(without)}; statistics are of the others"
          " alone."
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
            f"{value} for {listed(of)}" for value, of in values.items()
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

  def _curves(self):
    agents = [
      agent for agent in self._agents if agent not in _ABLATIONS
    ] or self._agents
    panels: dict[str, dict[str, list[Run]]] = {
      task: of
      for task in self._groups.tasks
      if (of := {
        agent: members for agent in agents
        if (members := [
          run for run in self._groups.runs(task, agent) if run.curves
        ])
      })
    }
    if not panels:
      return
    self._section("Learning curves")
    shown = [run for of in panels.values() for x in of.values() for run in x]
    drawn = ", means over seeds with 95% intervals" if any(
      len(self._groups.finished(task, agent)) > 1
      for task, of in panels.items() for agent in of
    ) else ""
    if not all(run.finished for run in shown):
      drawn += "; dotted: unfinished runs"
    for axis, name in ((_STEPS, "steps"), (_SECONDS, "time")):
      self._page.figure(
        figures.learning_curves(panels, axis),
        f"learning_curves_{name}",
        f"Return over {axis.replace('_', ' ')} of training{drawn}.",
      )
    # Numbers that are perturbed alone have grids.
    grids = self._groups.perturbed()
    varied: dict[str, dict[str, Sequence[Run]]] = {}
    for (task, agent, variation), members in self._groups.items():
      if len(variation) > 1 or (variation and variation[0][0] not in grids):
        varied.setdefault(task, {})[label(agent, variation)] = members
    if varied:
      self._page.figure(
        figures.learning_curves(varied), "learning_curves_varied",
        "Return over environment steps of runs with other settings than the"
        " usual ones.",
      )

  def _details(self):
    """Adds returns at equal steps and times, and of varied settings."""
    tasks = [
      task for task in self._groups.tasks
      if math.isfinite(self._horizon(task, _STEPS))
    ]
    if not tasks:
      return
    self._section("Returns at equal steps and at equal time")
    self._page.text(
      "Returns of the last 100 training episodes at equal environment steps;"
      " their mean over all training up to there; and at equal training time"
      " (the median of the fastest agent; compilation is not part of it, and"
      " runs that have ended keep their last value). Evaluation: the last one"
      " of each run, at its end."
    )
    for task in tasks:
      usual: list[tuple[Any, ...]] = []
      varied: list[tuple[Any, ...]] = []
      horizon = self._horizon(task, _STEPS)
      for (of, agent, variation), _ in self._groups.items():
        if of == task and len(self._returns(task, agent, variation)):
          (varied if variation else usual).append(
            self._row(task, agent, variation)
          )
      self._page.heading(figures.short(task))
      head = (
        "agent", "seeds", f"at {horizon:,.0f} steps", "mean over training",
        f"at {self._horizon(task, _SECONDS):,.0f} s", "evaluation",
      )
      self._page.table(head, usual)
      if varied:
        self._page.fold(f"{figures.short(task)} with other settings")
        self._page.table(head, varied)
        self._page.unfold()

  def _row(
    self, task: str, agent: str, variation: Variation
  ) -> tuple[Any, ...]:
    final = self._returns(task, agent, variation)
    members = self._counted(task, agent, variation)
    timed = self._returns(task, agent, variation, _SECONDS)
    evaluated = np.array([
      score for run in members
      if math.isfinite(score := run.figures.get("evaluation", math.nan))
    ])
    horizon = self._horizon(task, _STEPS)
    return (
      label(agent, variation),
      len(final),
      statistics.mean_interval(final),
      statistics.mean_interval(np.array(
        [run.mean_return(horizon) for run in members]
      )),
      statistics.mean_interval(timed) if len(timed) else "",
      statistics.mean_interval(evaluated) if len(evaluated) else "",
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
    several = {a: m for a, m in matrices.items() if len(m) > 1}
    if not several:
      return
    together = "" if len(tasks) == 1 else f", {len(tasks)} tasks together"
    self._section(f"Normalised scores: {suite}{together}")
    scales = {
      task: scores.describe_scale(task)
      if self._ranges[task] is None
      else "from the lowest to the highest return of these runs"
      for task in tasks
    }
    self._page.text(
      "Normalised scores: " + "; ".join(
        f"{figures.short(task)}: {scale}" for task, scale in scales.items()
      ) + "."
    )
    left_out = [agent for agent in agents if agent not in matrices]
    if left_out:
      self._page.text(
        "Without a finished run on some task, and left out:"
        f" {listed(left_out)}."
      )
    for agent, matrix in matrices.items():
      numbers = [len(self._counted(task, agent)) for task in tasks]
      if len(matrix) == 1:
        self._page.text(
          f"{agent} has one seed alone"
          f"{' on some task' if len(tasks) > 1 else ''}, and is left out."
        )
      elif max(numbers) > len(matrix):
        self._page.text(
          f"{agent}: the first {counted(len(matrix), 'seed')} of each task, as"
          " one has no more."
        )
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
    name_of_suite = slug(suite.lower())
    names = list(statistics.AGGREGATES)
    self._page.table(
      ("agent", "seeds × tasks", *names),
      [
        (agent, "×".join(map(str, several[agent].shape)),
         *[aggregates[agent][name] for name in names])
        for agent in several
      ],
    )
    self._page.figure(
      figures.aggregate_curves(several_curves, "mean normalised score"),
      f"training_{name_of_suite}",
      f"Mean normalised score{' over tasks' if together else ''} during"
      " training, 95% intervals.",
    )
    self._page.figure(
      figures.aggregates(aggregates), f"aggregates_{name_of_suite}",
      f"Aggregates {'over tasks ' if together else ''}with 95% intervals; a"
      " smaller optimality gap is better.",
    )
    self._page.figure(
      figures.profiles(several), f"profiles_{name_of_suite}",
      "Performance profiles: the share of runs above each score.",
    )
    if self._baseline in several and len(several) > 1:
      estimates = statistics.probability_of_improvement(
        several, self._baseline
      )
      self._page.figure(
        figures.probabilities(estimates, self._baseline),
        f"probability_{name_of_suite}",
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
    self._page.figure(
      figures.ablation(bars, what), "ablation",
      "The ablation ladder: one head (STAC, blue) and three (STACX, green),"
      " with more and more self-tuned, and 95% intervals.",
    )
    self._page.text("Each step of a ladder over its own first one, in %:")
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
    self._page.table(("", *map(figures.short, tasks)), rows)

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
    self._page.figure(
      figures.relative_improvement(shown, baseline), "relative_improvement",
      f"Relative improvement of the normalised score over {baseline} with 95%"
      " intervals; where some are beyond ±50%, logarithmic beyond ±10%.",
    )
    tasks = dict.fromkeys(task for of in improvements.values() for task in of)
    self._page.table(
      ("%", *map(figures.short, tasks)),
      [
        (agent, *[of.get(task, "") for task in tasks])
        for agent, of in improvements.items()
      ],
    )
    self._page.figure(
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
        self._page.text(
          f"{agent} has the higher mean than {self._baseline} in {better} of"
          f" {counted(len(pairs), 'configuration')}"
          f" ({100 * better / len(pairs):.0f}%)."
        )
    ranges = {
      self._groups.usual(task, agent, "metaparameter_range")
      for task, of in cells.items()
      for agents in of.values()
      for agent in agents
    }
    self._page.figure(
      figures.robustness(
        cells, setting,
        lambda value: figures.describe_setting(setting, value, ranges),
      ),
      f"robustness_{setting}",
      f"Final return with {setting} perturbed, means and 95% intervals.",
    )

  def _metaparameters(self):
    if not any(
      plots.sigmas([run.curves]) for run in self._runs
      if run.finished and run.curves
    ):
      return
    self._section("Metaparameters over training")
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
      name = figures.short(task)
      title = f"{name}, {agent}, {counted(len(members), 'seed')}"
      over_seeds = (
        ": means, and from the lowest seed to the highest"
        if len(members) > 1 else ""
      )
      self._page.figure(
        figures.metaparameters(members, title),
        f"metaparameters_{name}_{agent}",
        f"σ(η) of every head, {title}{over_seeds}. γ by its horizon"
        " 1/(1−γ).",
      )
      self._page.figure(
        figures.alpha_order(members, title), f"alpha_order_{name}_{agent}",
        f"α_ρ and α_c, {title}{over_seeds}.",
      )
      shares = figures.alpha_order_share(members)
      if shares:
        self._page.text("Rows of the logs with α_ρ ≥ α_c: " + ", ".join(
          f"head {head} {share.shown('.1%')}" for head, share in shares.items()
        ) + ". Theorem 1 needs α_ρ ≤ α_c; the papers state, and count, the"
        " other order.")
    self._page.text(
      "σ(η) at the end of training, means and intervals over seeds. Apart:"
      " seeds whose auxiliary heads are all on one side of the acting head."
    )
    head = (
      "task, agent", "σ(η) of", "acting head, start", "acting head, end",
      "auxiliary heads, end", "apart",
    )
    if rows:
      self._page.table(head, rows)
    if perturbed:
      self._page.fold("With settings perturbed")
      self._page.table(head, perturbed)
      self._page.unfold()

  def _run_time(self):
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
    if not rows:
      return
    self._section("Run time")
    self._page.text(
      "Medians over seeds, on whatever machine and beside whatever else they"
      " ran; compare only runs that ran alike. Where the lowest and the highest"
      " rate are far apart, time says more of the machine than of the agent."
    )
    self._page.table(
      (
        "task, agent", "steps/s", "lowest to highest", "minutes",
        f"time / {self._baseline}",
      ),
      rows,
    )

  def _published(self):
    games = [task for task in self._groups.tasks if suite_of(task) == "Atari"]
    if not games:
      return
    self._section("Published numbers")
    for task in games:
      self._published_game(task)
    self._page.text(
      "What the paper of STACX reports, in its protocols (Atari with the"
      " protocol “papers”)."
    )
    self._page.table(
      ("agent", "measure", "value", "source"), published.FIGURES, "text"
    )
    for protocol in published.PROTOCOLS:
      self._page.heading(
        f"Atari-57, protocol “{protocol}”: median of published scores"
      )
      self._page.table(
        ("agent", "median, human-normalised", "source"),
        [
          (column.agent, f"{100 * median:.0f}%", column.source)
          for column, median in published.medians(protocol).items()
        ],
        "text",
      )
    self._page.text(published.REMARK)

  def _published_game(self, task: str):
    game = scores.game_of(task)
    if game is None:
      return
    protocol = self._option(task, "protocol", "papers")
    if protocol not in published.PROTOCOLS:
      return
    rows: list[tuple[Any, ...]] = []
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
        returns,
        f"{100 * scores.human_normalised_score(game, returns.value):.1f}%", "",
      ))
    for column, value in published.returns(game, protocol).items():
      rows.append((
        f"{column.agent}, 200M frames", f"{value:.4g}",
        f"{100 * scores.human_normalised_score(game, value):.1f}%",
        column.source,
      ))
    self._page.heading(f"{game}, protocol “{protocol}”")
    self._page.table(
      ("agent", "return", "human-normalised", "source"), rows, "text"
    )


def _title(agents: Sequence[str], tasks: Sequence[str]) -> str:
  """Returns for example "impala and stac on catch"."""
  said = [
    " and ".join(names) if len(names) < 3 else counted(len(names), noun)
    for names, noun in ((agents, "agent"), (tasks, "task"))
  ]
  return " on ".join(said)


def _about_intervals(numbers: Sequence[int]) -> str:
  """Returns how intervals over so many seeds are estimated."""
  if max(numbers) < 2:
    return "One seed has no interval."
  said = (
    "Brackets are 95% intervals of a percentile bootstrap over seeds: they"
    " never leave the range of the seeds"
  )
  if min(n for n in numbers if n > 1) < _FEW_SEEDS:
    said += ", and with as few as here they are rather too narrow"
  return said + "." + (" One seed has no interval." if min(numbers) < 2 else "")


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
