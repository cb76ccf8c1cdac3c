"""Errors of environments, and how they are described."""

import traceback
import warnings
from typing import Any


class EnvironmentFailedError(Exception):
  """An environment raised, or broke its specs."""


def describe_error(error: BaseException) -> str:
  """Returns the type, the text and the place of an error, on one line.

  Shows the line of code if the error has no text, as from a bare `assert`.
  """
  frames = traceback.extract_tb(error.__traceback__)
  if not frames:
    return f"{type(error).__name__}: {error}"
  place = frames[-1]
  text = str(error) or f"at `{place.line}`"
  return (
    f"{type(error).__name__}: {text} ({place.filename}, line {place.lineno})"
  )


def close(environment: Any):
  """Closes an environment; only warns if that raises."""
  try:
    environment.close()
  except (Exception, SystemExit) as error:
    warnings.warn(
      f"The environment's close() raised {describe_error(error)}.",
      stacklevel=2,
    )
