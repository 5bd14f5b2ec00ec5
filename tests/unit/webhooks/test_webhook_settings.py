"""What webhooks are told by the environment."""

from __future__ import annotations

import pytest

from processors.webhooks.targets import parse_networks
from safelight.settings import SettingsError, webhook_settings


def test_networks_are_read_from_the_environment() -> None:
    """Several, separated by commas; none where nothing is set."""
    found = webhook_settings({"SAFELIGHT_WEBHOOK_ALLOW": "10.0.0.0/8, fd00::/8"})
    assert found.allowed_networks == parse_networks("10.0.0.0/8,fd00::/8")
    assert webhook_settings({}).allowed_networks == ()


def test_a_network_that_is_none_stops_the_start() -> None:
    """With the setting's name and how a network is written."""
    with pytest.raises(SettingsError) as caught:
        webhook_settings({"SAFELIGHT_WEBHOOK_ALLOW": "10.0.0.1/8"})
    (problem,) = caught.value.problems
    assert problem.startswith("SAFELIGHT_WEBHOOK_ALLOW")
    assert "10.0.0.0/8" in problem
