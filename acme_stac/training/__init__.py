"""What learns and acts on one host: learner, actor, adder, queue.

Nothing here imports Acme, Launchpad, Reverb or TensorFlow; `acme_stac.agent`
gives these parts Acme's interfaces.
"""
