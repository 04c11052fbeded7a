"""What happens after the storage refused a request (RefusedError), by what the request was for.

A refusal is an answer: the storage is there, and a person has to change a permission, the credentials, a quota or a
setting. So a refusal is not an outage, nothing is lost, and the daemon never stops sending the request again.

| refused                 | what waits                   | sent again after          | what reports it                 |
|-------------------------|------------------------------|---------------------------|---------------------------------|
| an object of a database | the database's later objects | 1 s, doubled up to 30 s   | its status, ``storage_refused`` |
| a request for a base    | that base                    | 30 s                      | its status, ``base_refused``    |
| a deletion              | all deletions                | an hour                   | ``housekeeping_postponed``      |
| a restore drill         | that drill                   | the next drill's time     | its status, ``drill_skipped``   |
| an abort of an upload   | nothing                      | the daemon's next start   | ``leftovers_kept``              |
| a probe                 | nothing                      | the next probe (a minute) | ``status``, ``storage_refused`` |
| a command's request     | the command                  | never: the command fails  | its error and exit code         |

If the storage will never take an object (ImpossibleError), for example because it is too large, that is not a refusal:
it ends the generation (``engine.ship.shipper``). ``adapters.storage.s3.s3_errors`` decides which answers are refusals,
and ``adapters.files.durable_file`` does so for a folder.
"""

from __future__ import annotations

from enum import Enum

OBJECT_FIRST_S = 1.0  # a refusal that passes by itself costs a second
OBJECT_LAST_S = 30.0  # more frequent requests would only fill the store's log
BASE_S = 30.0
DELETION_S = 3600.0  # the objects may stay until then
_DOUBLINGS_MAX = 10  # far above the limit; keeps 2^n a small number


class Refused(Enum):
    """What a refused request was for. Only requests that the daemon sends again by itself are listed."""

    OBJECT = "object"
    BASE = "base"
    DELETION = "deletion"


def refused_wait_s(refused: Refused, earlier: int = 0, *, fraction: float = 1.0) -> float:
    """Return the seconds until the request is sent again; ``earlier`` is the number of failures before this one.

    ``fraction`` is a random number in [0, 1). Half of an object's wait is random, so that databases whose objects were
    refused together do not all try again at the same moment.
    """
    assert earlier >= 0, "fewer failures than none"
    assert 0.0 <= fraction <= 1.0, "not a fraction"
    if refused is Refused.BASE:
        return BASE_S
    if refused is Refused.DELETION:
        return DELETION_S
    return min(OBJECT_LAST_S, OBJECT_FIRST_S * 2.0 ** min(earlier, _DOUBLINGS_MAX)) * (0.5 + 0.5 * fraction)
