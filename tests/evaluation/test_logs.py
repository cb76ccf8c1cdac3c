import numpy as np
import pandas as pd

from acme_stac.evaluation import logs


def test_rows_repeated_after_a_resumption_are_dropped(tmp_path):
  path = tmp_path / "log.csv"
  path.write_text("step,x\n1,a\n2,2.5\n3,3.5\n2,20\n3,30\n4,40\n5")
  table = logs.read(path, "step")
  np.testing.assert_array_equal(table["step"], [1, 2, 3, 4])
  np.testing.assert_array_equal(table["x"], [np.nan, 20, 30, 40])


def test_half_written_rows_are_dropped(tmp_path):
  path = tmp_path / "log.csv"
  path.write_text("a,steps\n1,1\n2,\n3\n4,2,5\n5,x\n7,3\n8,4")
  table = logs.read(path, "steps")
  np.testing.assert_array_equal(table["a"], [1, 7, 8])
  np.testing.assert_array_equal(table["steps"], [1, 3, 4])


def test_a_log_without_rows_is_an_empty_table(tmp_path):
  path = tmp_path / "log.csv"
  for content in (None, "", "step,x\n", "step,x\n1"):
    if content is not None:
      path.write_text(content)
    assert logs.read(path, "step").empty


def test_flags_are_numbers(tmp_path):
  path = tmp_path / "log.csv"
  path.write_text("truncated\nTrue\nFalse\n")
  np.testing.assert_array_equal(logs.read(path)["truncated"], [1.0, 0.0])


def test_metaparameters_are_found_by_name_and_head():
  both = {"sigma_alpha_head0": [1.0], "sigma_alpha_head10": [1.0]}
  tables = [
    pd.DataFrame({**both, "sigma_lambda__head0": [1.0], "sigma_x": [1.0]}),
    pd.DataFrame({"sigma_lambda__head0": [1.0], **both}),
  ]
  found = logs.sigma_columns(tables)
  assert list(found) == ["lambda_", "alpha"]
  assert found["alpha"] == {0: "sigma_alpha_head0", 10: "sigma_alpha_head10"}
  assert list(logs.sigma_columns([*tables, pd.DataFrame(both)])) == ["alpha"]
