import pytest

from acme_stac.evaluation import published, scores


def test_protocols_are_never_mixed():
  papers = published.returns("alien", "papers")
  machado = published.returns("alien", "machado")
  assert {agent: value for (agent, _), value in papers.items()} == {
    "IMPALA, deep": 15962.0, "STACX": 31809.0,
  }
  assert papers.index[0] == ("IMPALA, deep", "Espeholt et al. (2018)")
  assert machado["MonoBeast IMPALA"].item() == 3826.03
  assert not set(papers.index) & set(machado.index)
  for protocol in published.PROTOCOLS:
    medians = published.medians(protocol)
    assert list(medians.index) == list(
      published.returns("alien", protocol).index
    )


def test_every_game_has_every_number():
  for game in scores.atari_57():
    for protocol in ("papers", "machado"):
      assert (published.returns(game, protocol).abs() < 1e9).all()


def test_medians_are_those_of_the_publications():
  medians = {
    agent: median
    for (agent, _), median in published.medians("papers").items()
  }
  # Espeholt et al. (2018), table 1: 191.8%.
  assert medians["IMPALA, deep"] == pytest.approx(1.918, abs=1e-3)
  # 301% is not the paper's 364%, and the page says so.
  assert medians["STACX"] == pytest.approx(3.01, abs=0.01)
  assert "364%" in published.REMARK and "301%" in published.REMARK
