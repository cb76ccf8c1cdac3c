"""The Acme side: builder, learner, actors, adder.

Importing anything of this package first gives dm-acme 0.4.0 the JAX names that
it needs, so that a process may unpickle our classes before any of Acme's.
"""

from acme_stac.agent import compat

compat.apply()
