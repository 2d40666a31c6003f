"""What every test stands on: which build is under test, and how long hypothesis may look."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import mcpfast._core

settings.register_profile(
    "local", deadline=None
)  # machines swing threefold: time is measured in benches, not here
settings.register_profile(
    "ci",
    settings.get_profile("local"),
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_report_header() -> str:
    return f"compiled core: {mcpfast._core.__file__}"


def pytest_sessionstart() -> None:
    """Where a special build was asked for (coverage, sanitizers, an installed wheel), only that one may be tested."""
    tree, core = os.environ.get("MCPFAST_TREE"), Path(mcpfast._core.__file__)
    if tree and Path(tree).resolve() not in core.resolve().parents:
        raise pytest.UsageError(f"the tests should run against {tree}, but import {core}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sanitizers and line tracing cost memory, time and instructions of their own."""
    build = Path(os.environ.get("MCPFAST_TREE", "")).parent.name
    if build.startswith(("sanitize", "trace")):
        skip = pytest.mark.skip(reason=f"measures what a {build.split('-')[0]} build changes")
        for item in items:
            if item.get_closest_marker("plain_build"):
                item.add_marker(skip)
