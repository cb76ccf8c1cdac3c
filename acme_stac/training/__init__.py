"""Learner, actor, adder and queue of one host.

Nothing here imports Acme, Launchpad, Reverb or TensorFlow; `acme_stac.agent`
wraps these parts in Acme's interfaces.
"""

from acme_stac.training.actor import Actor
from acme_stac.training.adder import TrajectoryAdder
from acme_stac.training.builder import AgentBuilder
from acme_stac.training.learner import Learner
from acme_stac.training.local_queue import LocalQueue
