"""Tests of packaging/container, and of a container's life in namespaces, for which no tool that builds images is
needed.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.daemon import Daemon

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "packaging/container"


def test_the_image_has_an_unprivileged_user_and_no_identity() -> None:
    """The state is a volume, the container stops by SIGTERM, and its program is the daemon."""
    text = (CONTAINER / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert "USER 10001:10001" in lines
    assert "VOLUME /var/lib/walsyncd" in lines
    assert "STOPSIGNAL SIGTERM" in lines
    assert lines[-2:] == ['ENTRYPOINT ["walsyncd"]', 'CMD ["run"]']
    assert "rm -f /etc/machine-id" in text
    assert text.index("USER 10001") > text.rindex("RUN ")


def _manifests() -> dict[str, Any]:
    return {name: yaml.safe_load((CONTAINER / f"{name}.yaml").read_text()) for name in ("compose", "kubernetes")}


def test_folders_are_mounted_and_there_is_time_to_stop() -> None:
    """No single file is mounted. The state outlives the container, and the application is stopped first."""
    manifests = _manifests()
    services = manifests["compose"]["services"]
    assert "data:/data" in services["walsyncd"]["volumes"]
    assert "state:/var/lib/walsyncd" in services["walsyncd"]["volumes"]
    assert int(services["walsyncd"]["stop_grace_period"].removesuffix("s")) >= 60
    assert "walsyncd" in services["app"]["depends_on"]
    spec = manifests["kubernetes"]["spec"]["template"]["spec"]
    restore, sidecar = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] >= 60
    assert spec["securityContext"]["runAsNonRoot"]
    mounts = [mount for each in (restore, sidecar, *spec["containers"]) for mount in each["volumeMounts"]]
    assert not any("subPath" in mount for mount in mounts)
    assert {"name": "state", "mountPath": "/var/lib/walsyncd"} in sidecar["volumeMounts"]


def test_commands_in_the_manifests_are_ours() -> None:
    """The command accepts every argument in the manifests."""
    from walsyncd.cli import build_parser

    manifests = _manifests()
    init = manifests["kubernetes"]["spec"]["template"]["spec"]["initContainers"][0]
    for words in (manifests["compose"]["services"]["restore"]["command"], init["args"]):
        args = build_parser("restore").parse_args(words)
        assert (args.if_missing, args.if_replica, args.replica) == (True, True, "data/app.db")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_a_container_that_is_made_again_goes_on(tmp_path: Path) -> None:
    """With another host name and pid namespace, no machine-id, and the same state, no new base is needed."""
    database = tmp_path / "data/app.db"
    database.parent.mkdir()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        generations = []
        for number in (1, 2, 3):
            inside = (
                f"hostname container-{number} && mount --bind /dev/null /etc/machine-id"
                ' && mount -t tmpfs tmpfs /run && exec "$@"'
            )
            prefix = ["unshare", "--mount", "--uts", "sh", "-c", inside, "sh"]
            with Daemon(tmp_path, [database], prefix=prefix) as daemon:
                daemon.start()
                connection.execute("INSERT INTO t VALUES (?)", (number,))
                daemon.sync()
                generations.append(daemon.status("app")["position"].split("/")[0])
                assert daemon.stop() == 0
        assert len(set(generations)) == 1
        bases = list((tmp_path / "replica").rglob("base/*.json.zst"))
        assert len(bases) == 1
