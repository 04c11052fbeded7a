"""Finds a bucket's own rules that cost money or remove what walsyncd needs. It reads the rules, and writes one object.

===========================================  ===============  =========================================================
rule                                         is a             because
===========================================  ===============  =========================================================
versions are kept, and no rule ends them     note             deleted objects stay and are billed
objects expire, with ``delete = true``       problem          the rule removes what the daemon still needs
objects expire before ``expire_after``       problem          the rule removes what the daemon still needs
nothing expires, with ``delete = false``     note             the bucket grows for ever
objects move to an archive                   problem          a restore can't read them at once
uploads are aborted after a day              note             a base that takes longer begins again
Object Lock keeps deleted objects            note             the objects are billed for that time
conditional writes are not honoured          note             two daemons for one folder are detected later
===========================================  ===============  =========================================================

A rule for objects with a tag does not apply, since walsyncd sets no tags. If the credentials may not read a rule, that
is a note. A request that the store does not know is ignored. Sources: Amazon S3 API Reference, "GetBucketVersioning",
"GetBucketLifecycleConfiguration", "GetObjectLockConfiguration".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from walsyncd.adapters.storage.remark import Remark
from walsyncd.adapters.storage.s3.s3_errors import error_code, error_status

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAY_S = 86_400.0
# Classes whose objects must be restored from the archive before they can be read.
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_ABSENT_CODES = frozenset(
    {"NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFoundError", "NoSuchConfiguration"}
)
_UNKNOWN_CONDITION = 501
_UNKNOWN_STATUSES = frozenset({400, 404, 405, 501})
_OLD_VERSIONS_HINT = "a lifecycle rule with NoncurrentVersionExpiration (1 day) and ExpiredObjectDeleteMarker ends them"


class BucketRules:
    """Requests a bucket's rules. ``root`` is the prefix of all keys, ``expire_after_s`` is the configured age."""

    def __init__(self, client: S3Client, bucket: str, root: str, deletes: bool, expire_after_s: float | None) -> None:
        self._client = client
        self._bucket = bucket
        self._root = root
        self._deletes = deletes
        self._expire_after_s = expire_after_s
        self._unasked: list[Remark] = []

    def remarks(self) -> list[Remark]:
        """Return all remarks."""
        lifecycle = self._ask(
            "lifecycle", "s3:GetLifecycleConfiguration", self._client.get_bucket_lifecycle_configuration
        )
        versioning = self._ask("versions", "s3:GetBucketVersioning", self._client.get_bucket_versioning)
        lock = self._ask(
            "object lock", "s3:GetBucketObjectLockConfiguration", self._client.get_object_lock_configuration
        )
        rules = [rule for rule in (lifecycle or {}).get("Rules", ()) if self._applies(rule)]
        return [
            *self._unasked,
            *self._of_versions(versioning, rules, is_known=lifecycle is not None),
            *self._of_expiry(rules, is_known=lifecycle is not None),
            *_of_archives(rules),
            *_of_uploads(rules),
            *self._of_lock(lock),
            *self._of_conditions(f"{self._root}.walsyncd-check-{secrets.token_hex(8)}"),
        ]

    def _ask(self, step: str, action: str, question: Callable[..., Any]) -> Mapping[str, Any] | None:
        """Return the answer, or {} if there is no such rule, or None if the rule is unknown."""
        try:
            answer: Mapping[str, Any] = question(Bucket=self._bucket)
        except ClientError as error:
            if error_code(error) in _ABSENT_CODES:
                return {}
            if error_status(error) not in _UNKNOWN_STATUSES:
                text = f"the bucket's rules could not be read: the store answered {error_code(error)}"
                self._unasked.append(Remark(step, text, f"allow {action} to have them checked", is_problem=False))
            return None
        except (BotoCoreError, HTTPError):  # an earlier step has reported whether the store answers at all
            return None
        return answer

    def _applies(self, rule: Mapping[str, Any]) -> bool:
        """Whether a rule is in force for our objects."""
        chosen = rule.get("Filter") or {}
        joined = chosen.get("And") or {}
        if rule.get("Status") != "Enabled" or "Tag" in chosen or joined.get("Tags"):
            return False
        prefix = str(rule.get("Prefix") or chosen.get("Prefix") or joined.get("Prefix") or "")
        return prefix.startswith(self._root) or self._root.startswith(prefix)

    def _of_versions(
        self, versioning: Mapping[str, Any] | None, rules: Sequence[Mapping[str, Any]], *, is_known: bool
    ) -> Iterator[Remark]:
        if (versioning or {}).get("Status") not in {"Enabled", "Suspended"}:
            return
        if any("NoncurrentVersionExpiration" in rule for rule in rules):
            return
        unless = "" if is_known else ", unless a rule ends them"
        text = f"the bucket keeps versions: what is deleted or replaced stays, and is billed{unless}"
        yield Remark("versions", text, _OLD_VERSIONS_HINT, is_problem=False)

    def _of_expiry(self, rules: Sequence[Mapping[str, Any]], *, is_known: bool) -> Iterator[Remark]:
        expiring = [(rule, _expiry(rule)) for rule in rules]
        for rule, expiry in expiring:
            if expiry and self._deletes:
                text = f"{_name(rule)} removes objects {expiry}, which the daemon still needs"
                hint = "remove the rule, or have it do all removing: delete = false and expire_after"
                yield Remark("lifecycle", text, hint)
            elif expiry and self._is_too_soon(rule):
                text = f"{_name(rule)} removes objects {expiry}, sooner than expire_after says"
                yield Remark("lifecycle", text, "make both the same")
        if is_known and not self._deletes and not any(expiry for _, expiry in expiring):
            text = "delete = false, and no rule removes anything: the bucket grows for ever"
            yield Remark("lifecycle", text, "add a rule with the age that expire_after says", is_problem=False)

    def _is_too_soon(self, rule: Mapping[str, Any]) -> bool:
        days = rule["Expiration"].get("Days")
        return days is None or self._expire_after_s is None or days * DAY_S < self._expire_after_s

    def _of_lock(self, lock: Mapping[str, Any] | None) -> Iterator[Remark]:
        rule = (lock or {}).get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention")
        if rule and self._deletes:
            span = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years')} years"
            text = f"Object Lock keeps every object for {span}: what is deleted before is hidden, and billed"
            hint = "delete = false with expire_after, or a bucket without a default retention"
            yield Remark("object lock", text, hint, is_problem=False)

    def _of_conditions(self, key: str) -> Iterator[Remark]:
        """Write an object. Check that the store refuses to write it again on the condition that it is absent."""
        try:
            self._client.put_object(Bucket=self._bucket, Key=key)
            try:
                self._client.put_object(Bucket=self._bucket, Key=key, IfNoneMatch="*")
            except ClientError as error:
                if error_status(error) != _UNKNOWN_CONDITION:
                    return
            finally:
                if self._deletes:
                    self._client.delete_object(Bucket=self._bucket, Key=key)
        except (BotoCoreError, ClientError, HTTPError):  # an earlier step has reported whether objects can be written
            return
        text = "the store overwrites although it was told not to (no conditional writes)"
        hint = "two daemons that write to one folder notice it later, by what they read back: run only one"
        yield Remark("conditions", text, hint, is_problem=False)


def _of_archives(rules: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    for rule in rules:
        for move in rule.get("Transitions", ()):
            if move.get("StorageClass") in _ARCHIVES:
                text = f"{_name(rule)} moves objects to {move['StorageClass']}: a restore could not read them at once"
                yield Remark("lifecycle", text, "move them to GLACIER_IR at the most")


def _of_uploads(rules: Sequence[Mapping[str, Any]]) -> Iterator[Remark]:
    for rule in rules:
        days = (rule.get("AbortIncompleteMultipartUpload") or {}).get("DaysAfterInitiation")
        if days == 1:
            text = f"{_name(rule)} aborts uploads after a day: a base that takes longer begins again"
            yield Remark("lifecycle", text, "7 days are enough for every base", is_problem=False)


def _expiry(rule: Mapping[str, Any]) -> str:
    """Return in words when a rule removes current objects, or an empty text if it does not."""
    expiration = rule.get("Expiration") or {}
    if expiration.get("Days"):
        return f"after {expiration['Days']} days"
    date = expiration.get("Date")
    return f"on {date:%Y-%m-%d}" if isinstance(date, datetime) else ""


def _name(rule: Mapping[str, Any]) -> str:
    return f"lifecycle rule {rule['ID']!r}" if rule.get("ID") else "a lifecycle rule"
