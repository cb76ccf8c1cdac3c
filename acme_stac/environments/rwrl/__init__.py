"""The Real-World RL suite, and its challenges for any dm_env environment.

What belongs here is the suite alone: its numbers, models and order of
operations. General wrappers are in `environments.wrappers`.
"""

from acme_stac.environments.rwrl.challenges import LEVELS, Challenges
from acme_stac.environments.rwrl.schedule import SCHEDULERS
from acme_stac.environments.rwrl.suite import RealWorld, all_levels, load
from acme_stac.environments.rwrl.wrapper import ChallengedEnvironment
