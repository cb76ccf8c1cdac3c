"""Reports of made-up work directories."""

import html
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from acme_stac.evaluation.figures import styles
from programs import report
from programs.run.errors import UserError
from tests.support import workdirs

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_CARTPOLE = "gymnasium:CartPole-v1"


def make_runs(tmp_path):
  """Writes runs of every kind that a report tells apart."""
  rng = np.random.default_rng(0)
  number = 0

  def make(task, agent, seed, final, **more):
    nonlocal number
    number += 1
    workdirs.make(
      tmp_path / "runs" / str(number), task, agent, seed, final, **more
    )

  sigmas = {
    f"sigma_{name}_head{head}": value
    for name, value in (("discount", 0.98), ("alpha", 0.9))
    for head in range(3)
  }
  for task, best in ((_CARTPOLE, 400.0), ("catch", 0.5), ("atari:pong", -10.0)):
    for seed in range(3):
      noise = rng.normal(0, 0.02) * best
      make(task, "impala", seed, 0.9 * best + noise, rate=200.0)
      make(
        task, "stacx", seed, best + noise,
        sigmas={**sigmas, "sigma_discount_head0": 0.995},
      )
  for seed in range(2):
    make("catch", "stac_gamma", seed, 0.4 + 0.01 * seed)
    for agent, final in (("impala", 100.0), ("stacx", 90.0 + seed)):
      make(_CARTPOLE, agent, seed, final, discount=0.9)
  make(
    "catch", "stacx_split_alpha", 0, 0.1,
    sigmas={"sigma_alpha_rho_head0": 0.995, "sigma_alpha_c_head0": 0.9},
  )
  make("catch", "impala", 5, 0.3, share=0.5)
  return tmp_path / "runs"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  directory = tmp_path_factory.mktemp("report")
  output = directory / "out"
  assert report.main([
    str(make_runs(directory)), f"--output={output}", "--title=A <study>",
  ]) == 0
  return output / "index.html"


@pytest.fixture
def undrawn(monkeypatch):
  """Leaves out drawing, which takes most of the time of a report."""
  monkeypatch.setattr(styles, "save", lambda figure, file, dpi: None)


def text_of(page):
  """Returns the words of a page, without its pictures."""
  source = re.sub(r"<(img|source)[^>]*>", "", page.read_text())
  return html.unescape(re.sub(r"<[^>]+>", " ", source.partition("</style>")[2]))


def cells(page, *words):
  """Returns the rows of tables that begin with these words."""
  rows = re.findall(r"<tr>(.*?)</tr>", page.read_text())
  split = [
    [
      html.unescape(re.sub("<[^>]*>", "", x))
      for x in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)
    ]
    for row in rows
  ]
  return [row for row in split if tuple(row[: len(words)]) == words]


def test_missing_and_unfinished_runs_are_said(page):
  text = text_of(page)
  assert "A <study>" in text
  assert "26 runs, 25 finished, on 3 tasks" in " ".join(text.split())
  assert "catch, impala: Unfinished: seed 5 (50%)." in text
  assert "catch, stac_gamma: seeds 2, 5 missing." in text
  # With γ = 0.9 there are two seeds of each agent, and none is missing.
  assert "discount=0.9: seeds" not in text


def test_numbers_are_those_of_the_logs(page):
  text = " ".join(text_of(page).split())
  # Of CartPole's 2 × 2 configurations STACX has the higher mean in one.
  assert (
    "stacx has the higher mean than impala in 1 of 2 configurations (50%)"
    in text
  )
  (row,) = cells(page, "stacx, discount=0.9")
  assert row[1] == "2" and row[2].startswith("90.5 [90.0, 91.0]")
  # IMPALA is twice as fast: at its end STACX is half way, on a line.
  finals = {row[0]: row for row in cells(page, "stacx", "3")}
  end, timed = (
    float(finals["stacx"][i].split(" ")[0]) for i in (2, 4)
  )
  assert timed == pytest.approx(end / 2, rel=0.02)
  (row,) = cells(page, "CartPole-v1, stacx", "γ")
  assert row[2] == "0.9900" and row[3].startswith("0.9950")
  assert row[4].startswith("0.9800") and row[5] == "3 lower, 0 higher of 3"
  assert "head 0 100.0%" in text
  (row,) = cells(page, "CartPole-v1, stacx")[-1:]
  assert row[-1] == "2.00"


def test_published_numbers_of_the_same_protocol(page):
  text = text_of(page)
  assert "pong, protocol “papers”" in text
  of_papers = text.partition("pong, protocol “papers”")[2]
  assert "MonoBeast" not in of_papers.partition("“machado”")[0]
  assert text.count("Huang et al. (2023)") == 4
  assert "301%" in text and "364%" in text


def test_files_beside_the_page(page):
  names = {path.name for path in page.parent.iterdir()}
  assert {
    "ablation.png", "aggregates_small_tasks.png",
    "aggregates_atari_protocol_papers.png",
    "alpha_order_catch_stacx_split_alpha.png", "data", "improved_tasks.png",
    "index.html", "learning_curves_steps.png", "learning_curves_time.png",
    "metaparameters_catch_stacx.png", "metaparameters_atari_pong_stacx.png",
    "probability_small_tasks.png", "profiles_small_tasks.png",
    "relative_improvement.png", "robustness_discount.png",
    "training_atari_protocol_papers.png", "training_small_tasks.png",
  } <= names
  # The page is whole by itself.
  source = page.read_text()
  assert source.count("data:image/png;base64,") == 2 * (len(names) - 2)
  assert not re.search(r'(src|href)="(?!data:|#)', source)


def test_a_report_of_its_own_data_says_the_same(page, tmp_path, undrawn):
  assert report.main([
    str(page.parent / "data"), f"--output={tmp_path}", "--title=A <study>",
  ]) == 0
  number = re.compile(r"-?\d+(?:\.\d+)?")
  texts = [text_of(path) for path in (page, tmp_path / "index.html")]
  assert number.sub("", texts[0]) == number.sub("", texts[1])
  # The data have six digits; what is in the middle is rounded either way.
  ours, theirs = ([float(x) for x in number.findall(text)] for text in texts)
  np.testing.assert_allclose(ours, theirs, rtol=0.01)


def test_what_is_wrong_is_said(tmp_path, undrawn):
  with pytest.raises(UserError, match="There is no directory"):
    report.main([str(tmp_path / "x"), f"--output={tmp_path}"])
  workdirs.make(tmp_path / "runs", "catch", "stac", 0, 1.0)
  arguments = [str(tmp_path / "runs"), f"--output={tmp_path / 'out'}"]
  with pytest.raises(UserError, match="'impala'. Agents .*: stac"):
    report.main([*arguments, "--baseline=impala"])
  # One run alone is a page too, whatever its agent is.
  assert report.main(arguments) == 0
  assert "No run" not in text_of(tmp_path / "out" / "index.html")


def test_other_budgets_are_said(tmp_path, undrawn):
  for agent, steps in (("impala", 64_000), ("stac", 32_000)):
    workdirs.make(
      tmp_path / agent, "catch", agent, 0, 1.0, num_environment_steps=steps
    )
  output = tmp_path / "out"
  assert report.main([str(tmp_path), f"--output={output}"]) == 0
  text = text_of(output / "index.html")
  assert "All are compared at 32,000, where the first of stac ends" in text
  (row,) = list(cells(output / "index.html", "impala", "1"))
  assert row[2] == "0.500"


def test_what_is_in_no_statistics_is_said(tmp_path, undrawn):
  for seed, final in enumerate((1.0, 0.8, float("nan"), float("inf"))):
    workdirs.make(tmp_path / f"i{seed}", "catch", "impala", seed, final)
  workdirs.make(
    tmp_path / "short", "catch", "impala", 0, 1.0, discount=0.9,
    num_environment_steps=3_200,
  )
  output = tmp_path / "out"
  assert report.main([str(tmp_path), f"--output={output}"]) == 0
  text = " ".join(text_of(output / "index.html").split())
  assert "catch, impala: no finite return at the end of seeds 2, 3," in text
  assert (
    "catch, impala, discount=0.9: runs end at 3,200 steps, before 64,000"
  ) in text
  row = cells(output / "index.html", "impala", "2")[0]
  assert row[2].startswith("0.90 [")
  assert "nan" not in text


def test_what_cannot_be_compared_is_said(tmp_path, undrawn):
  runs = tmp_path / "runs"
  for seed in range(2):
    workdirs.make(runs / f"i{seed}", "catch", "impala", seed, 1.0)
    workdirs.make(
      runs / f"s{seed}", "catch", "stac", seed, 1.0 + seed, batch_size=64
    )
    for agent in ("impala", "stacx"):
      workdirs.make(
        runs / f"p{agent}{seed}", "atari:pong", agent, seed, 1.0,
        options={"protocol": "machado"},
      )
  # Seed 1 of IMPALA twice, which are not copies of each other.
  workdirs.make(runs / "again", "catch", "impala", 1, 0.9)
  (runs / "failed").mkdir()
  (runs / "failed" / "sweep.log").write_text("Error")
  output = tmp_path / "out"
  assert report.main([str(runs), f"--output={output}"]) == 0
  text = " ".join(text_of(output / "index.html").split())
  for said in (
    "has not begun, or failed before",
    "stac has no run on atari:pong.",
    "stacx has no run on catch.",
    "catch, impala: several runs have seed 1, and count as independent.",
    "catch: agents differ in batch_size, although their presets do not: 32 for"
    " impala; 64 for stac.",
    "Normalised scores: Atari, protocol machado",
  ):
    assert said in text, said
  # Settings in which presets differ, such as the heads, are no such thing.
  assert "agents differ in self_tuned" not in text
  (row,) = cells(output / "index.html", "impala", "3")
  assert row[2].startswith("0.97 [0.90, 1.00]")
  assert not (output / "learning_curves_varied.png").exists()


def test_runs_that_differ_in_several_settings_are_drawn(tmp_path, undrawn):
  for seed in range(2):
    workdirs.make(tmp_path / "runs" / f"i{seed}", "catch", "impala", seed, 1.0)
  workdirs.make(
    tmp_path / "runs" / "v", "catch", "impala", 0, 0.5, discount=0.9,
    batch_size=64,
  )
  output = tmp_path / "out"
  assert report.main([str(tmp_path / "runs"), f"--output={output}"]) == 0
  assert (output / "learning_curves_varied.png").exists()


def test_games_of_minatar_are_averaged_and_searches_ranked(tmp_path, undrawn):
  """IMPALA scores 1, half of its gain over random play 0.5."""
  for game, random, gain in (("Breakout", 0.40, 10.0), ("Asterix", 0.49, 4.0)):
    for seed in range(2):
      for agent, share, settings in (
        ("impala", 1.0, {}),
        ("stacx", 0.5, {}),
        ("stacx", 0.75, {"learning_rate": 1e-3, "discount": 0.9}),
        ("stacx", 0.25, {"learning_rate": 1e-4, "kl_cost": 0.0}),
      ):
        workdirs.make(
          tmp_path / "runs" / f"{game}{share}" / str(seed),
          f"gymnax:{game}-MinAtar", agent, seed, random + share * gain,
          **settings,
        )
  output = tmp_path / "out"
  assert report.main([str(tmp_path / "runs"), f"--output={output}"]) == 0
  page = output / "index.html"
  assert "Normalised scores: MinAtar, 2 tasks together" in text_of(page)
  for agent, score in (("impala", "1.00"), ("stacx", "0.500")):
    (row,) = cells(page, agent, "2×2")
    assert row[2].startswith(score), row
  ranked = [row for row in cells(page) if row and "kl_cost=1.0" in row[0]]
  assert [(row[0], row[2].split(" ")[0]) for row in ranked] == [
    ("discount=0.9, kl_cost=1.0, learning_rate=0.001", "0.750"),
    ("discount=0.99, kl_cost=1.0, learning_rate=0.004", "0.500"),
  ]


def test_a_sweep_under_way_compares_what_all_agents_have(tmp_path, undrawn):
  for name, agents in (
    ("Breakout", ("impala", "stac", "stacx")), ("Asterix", ("impala",))
  ):
    for agent in agents:
      for seed in range(2):
        workdirs.make(
          tmp_path / "runs" / name / agent / str(seed),
          f"gymnax:{name}-MinAtar", agent, seed, 5.0,
        )
  output = tmp_path / "out"
  assert report.main([str(tmp_path / "runs"), f"--output={output}"]) == 0
  text = " ".join(text_of(output / "index.html").split())
  assert "some agent, and left out: Asterix-MinAtar." in text
  assert cells(output / "index.html", "stacx", "2×1")


@pytest.mark.parametrize("seeds", [3, 4])
def test_a_report_on_one_task_shows_each_number_once(tmp_path, undrawn, seeds):
  for seed in range(seeds):
    for agent in ("impala", "stacx"):
      workdirs.make(
        tmp_path / agent / str(seed), "catch", agent, seed, 0.5 + seed
      )
  output = tmp_path / "out"
  assert report.main([str(tmp_path), f"--output={output}"]) == 0
  assert not (output / "improved_tasks.png").exists()
  (head,) = cells(output / "index.html", "agent", "seeds × tasks")
  iqm = ["interquartile mean"] if seeds > 3 else []
  assert head[2:] == [*iqm, "mean", "optimality gap"]
  (head,) = cells(output / "index.html", "agent", "seeds")
  assert "evaluation" not in head


def test_mean_over_training_ends_where_runs_are_compared(tmp_path, undrawn):
  for agent, steps in (("impala", 16_000), ("stac", 64_000)):
    workdirs.make(
      tmp_path / "runs" / agent, "catch", agent, 0, 1.0, rows=100,
      num_environment_steps=steps,
    )
  output = tmp_path / "out"
  assert report.main([str(tmp_path / "runs"), f"--output={output}"]) == 0
  (row,) = cells(output / "index.html", "stac", "1")
  assert float(row[2]) == pytest.approx(0.25, abs=0.01)
  assert float(row[3]) == pytest.approx(0.13, abs=0.01)


def test_time_is_compared_at_the_median_of_the_fastest(tmp_path, undrawn):
  # One run of IMPALA had the machine to itself.
  for seed, rate in enumerate((1000.0, 200.0, 200.0)):
    workdirs.make(
      tmp_path / "runs" / f"i{seed}", "catch", "impala", seed, 1.0, rate=rate
    )
    workdirs.make(tmp_path / "runs" / f"s{seed}", "catch", "stac", seed, 1.0)
  output = tmp_path / "out"
  assert report.main([str(tmp_path / "runs"), f"--output={output}"]) == 0
  page = output / "index.html"
  assert "at 317 s" in text_of(page)
  (impala,), (stac,) = cells(page, "impala", "3"), cells(page, "stac", "3")
  assert impala[4].startswith("1.00 [")
  assert float(stac[4].split()[0]) == pytest.approx(0.5, abs=0.02)
  (row,) = cells(page, "catch, impala", "200")
  assert row[2] == "200 to 1,000"


def test_rates_of_runs_that_shared_a_program_stand_alone(tmp_path, undrawn):
  for agent, number in (("impala", 1), ("stac", 1), ("stac", 8), ("stacx", 8)):
    workdirs.make(
      tmp_path / f"{agent}_{number}", "catch", agent, number, 1.0,
      side_by_side=number, rate=100.0 / number,
    )
  for directory in (tmp_path, tmp_path / "out" / "data"):
    assert report.main([str(directory), f"--output={tmp_path / 'out'}"]) == 0
    page = tmp_path / "out" / "index.html"
    ratios = {
      name: row[-1]
      for name in ("stac", "stac, 8 side by side", "stacx, 8 side by side")
      for row in cells(page, f"catch, {name}") if len(row) == 5
    }
    assert ratios == {
      "stac": "1.00", "stac, 8 side by side": "–", "stacx, 8 side by side": "–"
    }
    assert (
      "catch: times and rates do not compare, because programs trained unequal"
      " numbers of runs side by side (impala 1; stac 1 or 8; stacx 8)."
    ) in " ".join(text_of(page).split())


def test_names_are_only_names(tmp_path):
  for name in ("a$b$c", "$\\frac$", "x/../../y", "<b>", "l" * 300):
    workdirs.make(
      tmp_path / "runs" / f"{abs(hash(name))}", name, "impala", 0, 1.0,
      sigmas={"sigma_alpha_head0": 0.9},
    )
  output = tmp_path / "deep" / "out"
  assert report.main([str(tmp_path / "runs"), f"--output={output}"]) == 0
  assert {p.name for p in tmp_path.iterdir()} == {"runs", "deep"}
  assert {p.name for p in (tmp_path / "deep").iterdir()} == {"out"}
  page = output / "index.html"
  source = page.read_text()
  assert "<b>" not in source and "<b>" in html.unescape(source)
  # Long names are cut, and of no two tasks the same file.
  assert len(list(output.glob("metaparameters_*.png"))) == 5


_UNSAFE = "a\x1b[31mb\u202ec\u2066d\x07e\u200bf\ng"


def test_control_characters_reach_neither_terminal_nor_page(
  tmp_path, undrawn, capsys
):
  for number, (agent, batch_size) in enumerate([
    ("impala", 32), ("impala", 32), ("impala", 8), (_UNSAFE, 32),
  ]):
    directory = tmp_path / f"{number}{_UNSAFE}"
    workdirs.make(
      directory, _UNSAFE, "impala", number, 1.0, options={_UNSAFE: _UNSAFE},
      batch_size=batch_size,
    )
    config = directory / "config.json"
    described = json.loads(config.read_text())
    config.write_text(json.dumps({**described, "agent": agent}))
  (tmp_path / _UNSAFE / "damaged").mkdir(parents=True)
  (tmp_path / _UNSAFE / "damaged" / "config.json").write_text("no")
  output = tmp_path / "out"
  assert report.main([
    str(tmp_path), f"--output={output}", f"--title=x{_UNSAFE}"
  ]) == 0
  with pytest.raises(UserError) as raised:
    report.main([str(tmp_path / f"no{_UNSAFE}"), f"--output={output}"])
  written = capsys.readouterr()
  texts = [str(raised.value), (output / "index.html").read_text(),
           written.out, written.err]
  for text in texts:
    assert text.replace("\n", "").isprintable()
  assert "a\\x1b[31mb\\u202ec" in texts[1]


@pytest.mark.parametrize("name", ["index.html", "data/runs.csv"])
def test_a_pipe_in_place_of_what_is_written_is_refused(tmp_path, name):
  workdirs.make(tmp_path / "runs" / "i", "catch", "impala", 0, 1.0)
  path = tmp_path / "out" / name
  path.parent.mkdir(parents=True)
  os.mkfifo(path)
  with pytest.raises(UserError, match="is not a regular file"):
    report.main([str(tmp_path / "runs"), f"--output={tmp_path / 'out'}"])


def test_the_answer_comes_first_and_inventories_last(page):
  source = page.read_text()
  headings = re.findall(r"<h2[^>]*>(.*?)</h2>", source)
  assert headings[0] == "Return at the end of training"
  assert headings[1] == "Learning curves"
  assert headings[-1] == "Runs"
  # The first table has all agents and tasks, with intervals.
  first = re.search(r"<table.*?</table>", source)[0]
  for name in ("impala", "stacx", "CartPole-v1", "catch", "pong"):
    assert name in first
  inside = re.sub("<[^>]*>", "", first)
  assert re.search(r"\d \[\d+(\.\d+)?, \d+(\.\d+)?\] \(3 seeds\)", inside)
  # It is said how intervals are estimated, and lists of seeds are folded.
  assert "percentile bootstrap" in text_of(page)
  assert re.search(r"<details><summary>Seeds of", source.rpartition("<h2")[2])
  assert source.count("<details") == source.count("</details>")


def test_a_page_of_one_run_has_only_what_it_says_something_of(
  tmp_path, undrawn
):
  workdirs.make(tmp_path / "runs" / "i", _CARTPOLE, "impala", 0, 123.456789)
  output = tmp_path / "out"
  assert report.main([str(tmp_path / "runs"), f"--output={output}"]) == 0
  source = (output / "index.html").read_text()
  text = " ".join(text_of(output / "index.html").split())
  assert "<title>impala on CartPole-v1</title>" in source
  assert "1 run, 1 finished, on 1 task." in text
  assert not re.search(r"\b1 (runs|tasks|seeds|groups|warnings)\b", text)
  assert "Atari" not in text and "Published" not in text
  assert "Normalised" not in text and "Metaparameters" not in text
  assert "One seed has no interval" in text and "[" not in text
  assert cells(output / "index.html", "impala", "123")
  # Whatever is left says something.
  assert not re.search(r"</h2>(<h2|$)", source)
  assert "1 of 1 seed 0" in text


def test_every_picture_is_described(page):
  for picture in re.findall(r"<img[^>]*>", page.read_text()):
    assert re.search(r'alt="[^"]{15,}"', picture)


def browser():
  found = [path for name in _BROWSERS if (path := shutil.which(name))]
  if not found:
    pytest.skip(f"needs a browser: one of {', '.join(_BROWSERS)}")
  return found[0]


def show(page, tmp_path, *flags):
  """Returns what a browser without a network makes of a page."""
  return subprocess.run(
    [browser(), "--headless", "--no-sandbox", "--disable-gpu",
     "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}",
     "--host-resolver-rules=MAP * ~NOTFOUND", *flags, page.as_uri()],
    capture_output=True, text=True, timeout=120, check=True,
  ).stdout


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_in_a_browser(page, tmp_path, width, height):
  """Every picture is drawn, and nothing but tables is wider than the window."""
  copy = tmp_path / "page.html"
  # The window of a headless browser cannot be as narrow as a phone: a frame is.
  copy.write_text(
    f'<iframe id="frame" width="{width}" height="{height}"></iframe><script>'
    "const frame = document.getElementById('frame');"
    "frame.addEventListener('load', () => {"
    " const page = frame.contentDocument;"
    " const pictures = [...page.images];"
    " document.title = JSON.stringify({"
    "  pictures: pictures.length,"
    "  drawn: pictures.filter(x => x.complete && x.naturalWidth > 100).length,"
    "  width: page.documentElement.scrollWidth,"
    "  cut: [...page.querySelectorAll('.answer')].filter("
    "   x => x.scrollWidth > x.parentElement.clientWidth).length,"
    "  headings: page.querySelectorAll('h2').length}); });"
    f"frame.srcdoc = {_as_script(page.read_text())};</script>"
  )
  shown = show(copy, tmp_path, "--dump-dom", "--virtual-time-budget=20000")
  title = html.unescape(re.search(r"<title>(.*?)</title>", shown)[1])

  found = json.loads(title)
  assert found["pictures"] == page.read_text().count("<img")
  assert found["drawn"] == found["pictures"] > 10
  assert found["width"] <= width
  assert found["headings"] > 8
  assert found["cut"] == 0


def _as_script(text):

  return json.dumps(text).replace("</", "<\\/")


def test_in_print(page, tmp_path):
  pdf = tmp_path / "page.pdf"
  show(page, tmp_path, f"--print-to-pdf={pdf}")
  data = pdf.read_bytes()
  assert data.startswith(b"%PDF") and len(data) > 200_000
  assert data.count(b"/Subtype /Image") >= page.read_text().count("<img")
