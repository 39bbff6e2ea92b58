"""Hypothesis without a deadline: how long an example takes says more about the machine's load than about the code."""

from hypothesis import settings

settings.register_profile("workbench", deadline=None)
settings.load_profile("workbench")
