"""Groups runs by task, agent and what was varied among their settings."""

import collections
import json
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from acme_stac.evaluation.runs import NO_SETTINGS, OPTION, Run
from acme_stac.presets import AGENTS

# Names and values of the settings in which runs differ from the usual ones.
Variation: TypeAlias = tuple[tuple[str, Any], ...]


class Groups:
  """Runs by task, agent and variation.

  Tasks are in the order of their runs, agents in that of `AGENTS`.

  The usual value of a setting is the most frequent one among the runs of an
  agent on a task; of equally frequent ones, the one most frequent among all
  runs of the task. For an environment's options it is always the latter, as
  runs of another environment are not compared. If no run has all the usual
  values, those of the run with most of them are the usual ones. The variation
  of a group is where its settings differ from the usual ones.
  """

  def __init__(self, runs: Sequence[Run]):
    """Groups the runs."""
    self._usual: dict[tuple[str, str], dict[str, str]] = {}
    groups: dict[tuple[str, str, Variation], list[Run]] = {}
    self.tasks = list(dict.fromkeys(run.task for run in runs))
    for task in self.tasks:
      of_task = [run for run in runs if run.task == task]
      names = list(dict.fromkeys(n for run in of_task for n in run.settings))
      for agent in dict.fromkeys(run.agent for run in of_task):
        mine = [run for run in of_task if run.agent == agent]
        usual = _usual_settings(mine, of_task, names)
        self._usual[task, agent] = usual
        for run in mine:
          variation = tuple(
            (name, _hashable(run.settings.get(name)))
            for name, text in sorted(usual.items())
            if name not in NO_SETTINGS and _text(run, name) != text
          )
          groups.setdefault((task, agent, variation), []).append(run)
    presets = list(AGENTS)

    def order(key: tuple[str, str, Variation]) -> tuple[Any, ...]:
      task, agent, variation = key
      place = presets.index(agent) if agent in presets else len(presets)
      return self.tasks.index(task), place, len(variation), str(variation)

    self._groups = {
      key: sorted(groups[key], key=lambda run: run.seed)
      for key in sorted(groups, key=order)
    }

  @property
  def agents(self) -> list[str]:
    """Agents that have runs without variation on some task."""
    return list(dict.fromkeys(
      agent for _, agent, variation in self._groups if not variation
    ))

  def runs(
    self, task: str, agent: str, variation: Variation = ()
  ) -> list[Run]:
    """Returns the runs of a group by seed, unfinished ones included."""
    return self._groups.get((task, agent, variation), [])

  def finished(
    self, task: str, agent: str, variation: Variation = ()
  ) -> list[Run]:
    """Returns the finished runs of a group by seed."""
    return [run for run in self.runs(task, agent, variation) if run.finished]

  def __iter__(self) -> Iterator[tuple[str, str, Variation]]:
    """Yields the task, agent and variation of every group."""
    return iter(self._groups)

  def items(self) -> ItemsView[tuple[str, str, Variation], list[Run]]:
    """Returns pairs of (task, agent, variation) and the group's runs."""
    return self._groups.items()

  def usual(self, task: str, agent: str, name: str) -> Any:
    """Returns the usual value of a setting, None if no run has the setting."""
    return json.loads(self._usual.get((task, agent), {}).get(name, "null"))

  def perturbed(self) -> dict[str, list[float]]:
    """Returns the numbers that were varied alone, with all their values."""
    values: dict[str, set[float]] = {}
    for task, agent, variation in self._groups:
      if len(variation) == 1:
        ((name, value),) = variation
        pair = (value, self.usual(task, agent, name))
        if all(type(one) in (int, float) for one in pair):
          values.setdefault(name, set()).update(pair)
    return {name: sorted(found) for name, found in sorted(values.items())}


def _usual_settings(
  mine: Sequence[Run], of_task: Sequence[Run], names: Iterable[str]
) -> dict[str, str]:
  """Returns the usual settings of an agent on a task, as JSON texts."""
  usual = {}
  for name in names:
    all_counts = collections.Counter(_text(run, name) for run in of_task)
    counts = collections.Counter(_text(run, name) for run in mine)
    if name.startswith(OPTION):
      counts = all_counts
    usual[name] = max(counts, key=lambda text: (counts[text], all_counts[text]))
  nearest = max(
    mine,
    key=lambda run: sum(_text(run, name) == usual[name] for name in usual),
  )
  return {
    name: text if name in NO_SETTINGS or name.startswith(OPTION)
    else _text(nearest, name)
    for name, text in usual.items()
  }


def _text(run: Run, name: str) -> str:
  return json.dumps(run.settings.get(name))


def _hashable(value: Any) -> Any:
  """Returns lists and dictionaries, at any depth, as tuples."""
  if isinstance(value, Mapping):
    return tuple((name, _hashable(one)) for name, one in value.items())
  if isinstance(value, list | tuple):
    return tuple(map(_hashable, value))
  return value


def label(agent: str, variation: Variation = ()) -> str:
  """Returns the name of a group, for example "stac, discount=0.9"."""
  return ", ".join([
    agent,
    *[f"{name.removeprefix(OPTION)}={value}" for name, value in variation],
  ])
