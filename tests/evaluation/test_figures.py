"""What figures write beside their axes."""

from acme_stac.evaluation import figures


def test_initial_metaparameters_are_said_by_what_they_mean():
  """Of η₀ = 0.9 the value is σ(0.9), but 0.9 where the range is clipped."""
  name = "metaparameter_init"
  assert figures.describe_setting(name, 4.6, {"sigmoid"}) == "4.6\n(σ = 0.990)"
  assert figures.describe_setting(name, 0.9, {"clip"}) == "0.9"
  assert figures.describe_setting("discount", 0.99, {"sigmoid"}) == "0.99"
