import pytest

from acme_stac.evaluation import published, scores


def test_protocols_are_never_mixed():
  papers = published.returns("alien", "papers")
  machado = published.returns("alien", "machado")
  assert {column.agent: value for column, value in papers.items()} == {
    "IMPALA, deep": 15962.0, "STACX": 31809.0,
  }
  assert {c.agent: v for c, v in machado.items()}["MonoBeast IMPALA"] == 3826.03
  assert not set(papers) & set(machado)
  for protocol in published.PROTOCOLS:
    medians = published.medians(protocol)
    assert set(medians) == set(published.returns("alien", protocol))
    assert all(c.protocol == protocol and c.source for c in medians)


def test_every_game_has_every_number():
  for game in scores.atari_57():
    for protocol in ("papers", "machado"):
      found = published.returns(game, protocol).values()
      assert all(abs(value) < 1e9 for value in found)


def test_medians_are_those_of_the_publications():
  medians = {
    column.agent: median
    for column, median in published.medians("papers").items()
  }
  # Espeholt et al. (2018), table 1: 191.8%.
  assert medians["IMPALA, deep"] == pytest.approx(1.918, abs=1e-3)
  # 301% is not the paper's 364%, and the page says so.
  assert medians["STACX"] == pytest.approx(3.01, abs=0.01)
  assert "364%" in published.REMARK and "301%" in published.REMARK


def test_what_is_unknown_is_said():
  with pytest.raises(ValueError, match="pong"):
    published.returns("pongg", "papers")
  with pytest.raises(ValueError, match="machado"):
    published.returns("pong", "sticky")
