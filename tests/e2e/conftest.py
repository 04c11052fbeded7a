"""The storages with which the daemon is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.daemon import s3_section
from tests.stores import Store


@pytest.fixture(params=["directory", "moto", "seaweedfs", "rclone"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return ``[storage]`` of each kind in turn, empty."""
    if request.param == "directory":
        return {"url": (tmp_path / "replica").as_uri()}
    store: Store = request.getfixturevalue(request.param)
    return s3_section(store, store.make_bucket())
