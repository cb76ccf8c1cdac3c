"""Evaluates work directories: logs, statistics, figures and reports.

`logs` reads the CSV logs of a run, `summary` makes a row of figures from them,
`runs` finds many runs and `groups` compares their settings. `statistics`
estimates, `figures/` draws, `report/` writes the page. `scores` and `published`
hold what papers report. Nothing here starts or changes a run.
"""
