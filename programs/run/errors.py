"""Errors that a user can mend, and their exit code."""

import sys

from acme_stac.evaluation.text import printable

# Exit code of a command that was used wrongly.
USER_ERROR = 2


class UserError(Exception):
  """A mistake of the user's; the text says how to mend it."""


def report_error(error: UserError) -> int:
  """Prints a user's error and returns its exit code.

  Names in the message cannot steer the terminal; only its own line ends stay.
  """
  lines = str(error).split("\n")
  print("Error: " + "\n".join(map(printable, lines)), file=sys.stderr)
  return USER_ERROR
