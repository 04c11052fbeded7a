"""Fixtures of all tests: a clean environment, and real object stores, each started once per session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.stores import Store, run_moto, run_rclone, run_seaweedfs

# No test fails because the machine is busy. By default hypothesis reports an example of over 200 ms as a failure.
settings.register_profile("walsyncd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("walsyncd")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees a configuration or credentials of the machine on which it runs, or looks for them."""
    nowhere = tmp_path_factory.mktemp("no-settings")
    with pytest.MonkeyPatch.context() as patch:
        for variable in list(os.environ):
            if variable.upper().startswith(("WALSYNCD_", "AWS_")) or variable == "CREDENTIALS_DIRECTORY":
                patch.delenv(variable)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(nowhere / "config"))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere / "credentials"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        yield


@pytest.fixture(scope="session")
def moto() -> Iterator[Store]:
    """Run a moto server for the whole session. Use ``moto.make_bucket()``."""
    with run_moto() as store:
        yield store


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Run a SeaweedFS server for the whole session. Use ``seaweedfs.make_bucket()``."""
    with run_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as store:
        yield store


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Run ``rclone serve s3`` for the whole session. Use ``rclone.make_bucket()``."""
    with run_rclone(tmp_path_factory.mktemp("rclone")) as store:
        yield store
