"""Reasons and their classes."""

import pytest

from walsyncd.core.follow.gap import CLASSES, gap_class
from walsyncd.engine.base.renewal import REASON
from walsyncd.engine.follow.begin_generation import RESTARTED


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("3 transactions after epoch 7 frame 512 were overwritten before they were read", "overwritten"),
        ("a new WAL could not be opened: it was deleted again at once", "overwritten"),
        ("a WAL was deleted and the next one created before it could be opened", "overwritten"),
        (RESTARTED, "overwritten"),
        ("more than 256 MiB of an old WAL were left when it restarted", "overwritten"),
        ("3 transactions after frame 5 stand before a WAL that is not the next one", "uncertain"),
        ("frames of the old incarnation follow frame 5 though no commit is missing", "uncertain"),
        ("the WAL was emptied behind frame 5 while nobody was seen to use it", "uncertain"),
        ("page 7 of the old WAL's last transactions is not in the database: a commit failed", "uncertain"),
        ("another file was put in the database's place", "replaced"),
        ("the storage changed from s3://a to s3://b", "storage"),
        ("the spool reached its limit of 4GiB; 4GiB that waited for storage were dropped", "spool"),
        ("owner.json is gone, not the run that this journal wrote last", "owner"),
        (REASON, "renewed"),
        ("something that nobody has thought of", "other"),
        ("", "other"),
    ],
)
def test_a_reason_has_one_class_of_a_bounded_set(reason: str, expected: str) -> None:
    """Whatever the sentence says, the label is one of these."""
    assert gap_class(reason) == expected
    assert gap_class(reason) in CLASSES
