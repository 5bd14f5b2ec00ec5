"""Keeps the unit tests quick: fewer generated examples than Hypothesis' usual hundred, unless more are asked for with
`--hypothesis-profile=default`."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
