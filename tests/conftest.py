"""What every test shares: how hypothesis runs here."""

from hypothesis import settings

# The same examples on every run, and no deadline for one: a slow machine is no counterexample.
# Whoever hunts chooses more with `--hypothesis-profile=hunt`.
settings.register_profile("saga", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None, max_examples=2_000)
settings.load_profile("saga")
