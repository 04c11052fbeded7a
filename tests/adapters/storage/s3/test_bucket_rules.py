"""Tests of what `check` says about a bucket's own rules: what they cost, or delete."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from tests.scripted_store import Answer, ScriptedStore, refusal
from tests.stores import Store
from walsyncd.adapters.storage.probe import rules
from walsyncd.adapters.storage.remark import Remark
from walsyncd.adapters.storage.s3.s3_storage import S3Storage

OURS = "hosts/web-1"
OK = Answer(headers={"ETag": '"e"'})
NO_VERSIONS = Answer(body=b"<VersioningConfiguration/>")


def remarks_of(store: Store, bucket: str, **how: Any) -> list[Remark]:
    """Return the remarks about a storage with a prefix in the bucket."""
    with closing(S3Storage(store.settings(bucket, OURS))) as storage:
        return rules(storage, **{"deletes": True, "expire_after_s": None, **how})


def set_rules(store: Store, bucket: str, *each: dict[str, Any]) -> None:
    with closing(store.client()) as client:
        lifecycle: Any = {"Rules": [{"Status": "Enabled", **rule} for rule in each]}
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=lifecycle)


def keep_versions(store: Store, bucket: str) -> None:
    with closing(store.client()) as client:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def test_a_bucket_without_rules_is_no_remark(moto: Store) -> None:
    """The check leaves nothing in the bucket."""
    bucket = moto.make_bucket()
    assert remarks_of(moto, bucket) == []
    with closing(moto.client()) as client:
        assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_versions_that_nothing_ends_are_billed(moto: Store) -> None:
    """The note names the rule that helps. With that rule there is no note."""
    bucket = moto.make_bucket()
    keep_versions(moto, bucket)
    (said,) = remarks_of(moto, bucket)
    assert (said.step, said.is_problem) == ("versions", False)
    assert "NoncurrentVersionExpiration" in said.hint
    expiring = {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    set_rules(moto, bucket, {"ID": "elsewhere", "Filter": {"Prefix": "other/"}, **expiring})
    assert [each.step for each in remarks_of(moto, bucket)] == ["versions"]
    set_rules(moto, bucket, {"ID": "old", "Filter": {"Prefix": ""}, **expiring})
    assert remarks_of(moto, bucket) == []


@pytest.mark.parametrize(
    ("rule", "how", "words"),
    [
        ({"Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}, {}, "removes objects after 30 days, which the daemon"),
        ({"Filter": {"Prefix": "hosts/"}, "Expiration": {"Days": 30}}, {}, "lifecycle rule 'r' removes objects"),
        (
            {"Filter": {"Prefix": "hosts/web-1/app/"}, "Expiration": {"Days": 30}},
            {"deletes": False, "expire_after_s": 31 * 86_400.0},
            "sooner than expire_after says",
        ),
        (
            {"Filter": {"Prefix": ""}, "Transitions": [{"Days": 1, "StorageClass": "DEEP_ARCHIVE"}]},
            {},
            "moves objects to DEEP_ARCHIVE",
        ),
    ],
)
def test_a_rule_that_takes_away_what_is_needed_is_a_problem(
    moto: Store, rule: dict[str, Any], how: dict[str, Any], words: str
) -> None:
    """Such a rule is a problem wherever its prefix overlaps ours."""
    bucket = moto.make_bucket()
    set_rules(moto, bucket, {"ID": "r", **rule})
    problems = [each for each in remarks_of(moto, bucket, **how) if each.is_problem]
    assert [each.step for each in problems] == ["lifecycle"]
    assert words in problems[0].text


@pytest.mark.parametrize(
    "rule",
    [
        {"Filter": {"Prefix": "hosts/web-10/"}, "Expiration": {"Days": 30}},
        {"Filter": {"Tag": {"Key": "k", "Value": "v"}}, "Expiration": {"Days": 30}},
        {"Filter": {"Prefix": ""}, "Expiration": {"Days": 30}, "Status": "Disabled"},
        {"Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
    ],
)
def test_a_rule_for_others_is_none_of_ours(moto: Store, rule: dict[str, Any]) -> None:
    """A rule for another prefix or a tag, or one that is disabled, does not count. Uploads may take a week."""
    bucket = moto.make_bucket()
    set_rules(moto, bucket, {"ID": "r", **rule})
    assert remarks_of(moto, bucket) == []


def test_without_deletion_a_rule_has_to_remove(moto: Store) -> None:
    """A missing rule is a note, and a fitting one is right."""
    bucket = moto.make_bucket()
    how = {"deletes": False, "expire_after_s": 30 * 86_400.0}
    (said,) = remarks_of(moto, bucket, **how)
    assert (said.step, said.is_problem) == ("lifecycle", False)
    assert "grows for ever" in said.text
    set_rules(moto, bucket, {"ID": "r", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}})
    assert remarks_of(moto, bucket, **how) == []


def said_by(script: ScriptedStore, *answers: Answer) -> dict[str, Remark]:
    script.will_say(*answers)
    with closing(S3Storage(script.settings())) as storage:
        return {each.step: each for each in rules(storage, deletes=True, expire_after_s=None)}


def test_what_may_not_be_asked_is_a_note(script: ScriptedStore) -> None:
    """The note names the permission that is needed. What a store does not know is not mentioned."""
    exists = Answer(412)
    said = said_by(script, refusal(403, "AccessDenied"), refusal(501, "NotImplemented"), NO_VERSIONS, OK, exists, OK)
    assert list(said) == ["lifecycle"]
    assert not said["lifecycle"].is_problem
    assert "s3:GetLifecycleConfiguration" in said["lifecycle"].hint


def test_a_store_without_conditions_is_a_note(script: ScriptedStore) -> None:
    """Such a store overwrites, and answers that it went well."""
    unknown = refusal(404, "NoSuchConfiguration")
    said = said_by(script, unknown, unknown, unknown, OK, OK, OK)
    assert list(said) == ["conditions"]
    assert not said["conditions"].is_problem
    assert script.requests[-2].headers["if-none-match"] == "*"
    assert script.requests[-1].method == "DELETE"


def test_object_lock_is_a_note(script: ScriptedStore) -> None:
    """A deleted object stays hidden until its time is over."""
    lock = Answer(
        body=b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
        b"<Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
    )
    unknown = refusal(404, "NoSuchConfiguration")
    said = said_by(script, unknown, NO_VERSIONS, lock, OK, Answer(412), OK)
    assert list(said) == ["object lock"]
    assert "30 days" in said["object lock"].text
