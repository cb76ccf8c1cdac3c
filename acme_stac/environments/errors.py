"""Reports what environments raise."""

import traceback
import warnings
from typing import Any


class EnvironmentFailedError(Exception):
  """An environment raised, or gave what its specs do not allow."""


def describe_error(error: BaseException) -> str:
  """Returns the type, the text and the place of an error, on one line.

  The line of code that raised stands for a text that is missing, as that of a
  bare `assert`.
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
  """Closes an environment; warns if that raises, as nothing depends on it."""
  try:
    environment.close()
  except (Exception, SystemExit) as error:
    warnings.warn(
      f"The environment's close() raised {describe_error(error)}.",
      stacklevel=2,
    )
