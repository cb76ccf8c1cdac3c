"""All drawing: styles, plots of a run or sweep, and figures of groups of runs.

Figures are `matplotlib.figure.Figure`s: no plotting backend is chosen, and
nothing is registered with pyplot. `run` needs matplotlib alone; `groups` also
uses rliable's plots.
"""

from acme_stac.evaluation.figures.run import plot_run, plot_sweep
