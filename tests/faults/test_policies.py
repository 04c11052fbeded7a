"""Tests that the policies in packaging/iam allow what a bucket is asked, and nothing more."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.e2e.daemon import ROOT, Daemon, run_walsyncd, s3_section
from tests.e2e.workload import create
from tests.faults.faults import Kind
from tests.faults.proxy import run_fault_proxy
from tests.stores import Store

# The permissions that AWS requires for each operation: Service Authorization Reference, "Actions … for Amazon S3".
ACTIONS = {
    Kind.PUT: "s3:PutObject",
    Kind.PART: "s3:PutObject",
    Kind.CREATE: "s3:PutObject",
    Kind.COMPLETE: "s3:PutObject",
    Kind.ABORT: "s3:AbortMultipartUpload",
    Kind.LIST_PARTS: "s3:ListMultipartUploadParts",
    Kind.LIST: "s3:ListBucket",
    Kind.LIST_UPLOADS: "s3:ListBucketMultipartUploads",
    Kind.GET: "s3:GetObject",
    Kind.HEAD: "s3:GetObject",  # and ListBucket, otherwise the answer for an absent object is 403
    Kind.DELETE: "s3:DeleteObject",
}
RULES = {  # of the bucket, read by `check`
    "versioning": "s3:GetBucketVersioning",
    "lifecycle": "s3:GetLifecycleConfiguration",
    "object-lock": "s3:GetBucketObjectLockConfiguration",
}
PREFIX = "hosts/web-1"


def _statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((ROOT / "packaging/iam" / f"{name}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    statements: list[dict[str, Any]] = policy["Statement"]
    return statements


def _actions(name: str) -> Iterator[str]:
    for statement in _statements(name):
        actions = statement["Action"]
        yield from [actions] if isinstance(actions, str) else actions


def _is_allowed(name: str, kind: Kind, target: str) -> bool:
    """Return whether a statement's action, resource and condition fit a request for ``target``."""
    url = urlsplit(target)
    key = url.path.lstrip("/").partition("/")[2]
    resource = f"arn:aws:s3:::my-bucket/{key}" if key else "arn:aws:s3:::my-bucket"
    if kind is Kind.DELETE and not key:  # many at once: their keys, all below the prefix, are in the body
        resource = f"arn:aws:s3:::my-bucket/{PREFIX}/key"
    prefix = parse_qs(url.query).get("prefix", [""])[0]
    for statement in _statements(name):
        wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", "*")
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        fits = RULES.get(url.query, ACTIONS[kind]) in actions and fnmatch.fnmatchcase(resource, statement["Resource"])
        if fits and fnmatch.fnmatchcase(prefix, wanted):
            return True
    return False


def test_what_is_asked_is_allowed(tmp_path: Path, seaweedfs: Store) -> None:
    """The requests are those of a run with small and large objects, a base, a kill and a check, then of a restore
    elsewhere and a verification.
    """
    with run_fault_proxy(seaweedfs, seed=1, faults_max=0) as proxy:
        bucket = seaweedfs.make_bucket()
        storage = s3_section(seaweedfs, bucket, endpoint_url=proxy.endpoint_url)
        storage["url"] = f"s3://{bucket}/{PREFIX}"
        with Daemon(tmp_path, [tmp_path / "data/app.db"], storage=storage) as daemon:
            create(daemon.data / "app.db", rows=900, row_bytes=10_000)
            daemon.start().sync()
            daemon.done("snapshot", "app")
            daemon.done("check")
            daemon.stop()
            asked = list(proxy.asked)
            assert {Kind.PUT, Kind.PART, Kind.COMPLETE, Kind.ABORT, Kind.DELETE} <= {kind for kind, _ in asked}
            assert [each for each in asked if not _is_allowed("daemon", *each)] == []
            proxy.asked.clear()
            for command in (("restore", "app", "-o", str(tmp_path / "restored.db")), ("verify", "app"), ("ls", "app")):
                result = run_walsyncd(command[0], "--config", daemon.config, *command[1:])
                assert result.code == 0, result.stderr
            asked = list(proxy.asked)
            assert {Kind.LIST, Kind.GET} <= {kind for kind, _ in asked}
            assert [each for each in asked if not _is_allowed("restore", *each)] == []


def test_nothing_more_is_allowed() -> None:
    """Some operation of ours needs every action of a policy. The policy for restoring changes nothing."""
    assert set(_actions("daemon")) == {*ACTIONS.values(), *RULES.values()}
    assert set(_actions("restore")) == {"s3:GetObject", "s3:ListBucket"}
