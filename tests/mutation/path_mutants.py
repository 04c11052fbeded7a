"""Mutants that leave out the rules of which file a path means, and whose it is, one by one."""

from __future__ import annotations

from tests.mutation.mutants import mutant

OTHER_PATH = "core/follow/other_path.py"
SIGN = "adapters/files/other_path_sign.py"
SEARCH = "config/database_search.py"
SAFE_OPEN = "adapters/files/safe_open.py"

PATH_MUTANTS = (
    # -- another path
    mutant(
        "signs count however close they are",
        OTHER_PATH,
        "if now_ms - self.last_ms < APART_MS:",
        "if False:",
        "core/follow/test_other_path.py",
    ),
    mutant(
        "two signs are certain",
        OTHER_PATH,
        "self.signs >= SIGNS_MIN and",
        "self.signs >= 2 and",
        "core/follow/test_other_path.py",
    ),
    mutant(
        "signs need not last",
        OTHER_PATH,
        "self.last_ms - self.first_ms >= SPAN_MS",
        "True",
        "core/follow/test_other_path.py",
    ),
    mutant(
        "a database with a rollback journal is one of these",
        SIGN,
        "is_bare = header is not None and header.wal_mode and file",
        "is_bare = header is not None and file",
        "adapters/files/test_other_path_sign.py",
    ),
    mutant(
        "a journal is no side file",
        SIGN,
        "for role in (Role.WAL, Role.JOURNAL):",
        "for role in (Role.WAL,):",
        "adapters/files/test_other_path_sign.py",
    ),
    mutant(
        "a WAL that comes does not begin the count again",
        OTHER_PATH,
        "return OtherPath(had_wal=True, writes=self.writes)",
        "return replace(self, had_wal=True)",
        "engine/follow/test_other_path.py::test_a_file_that_is_mounted_elsewhere",
    ),
    mutant(
        "a WAL that was deleted is elsewhere",
        OTHER_PATH,
        "return DELETED if self.had_wal else ELSEWHERE",
        "return ELSEWHERE",
        "engine/follow/test_other_path.py::test_a_wal_that_was_deleted_beside_a_running_application",
    ),
    # -- whose file
    mutant(
        "a link in the file's place is followed",
        SAFE_OPEN,
        "os.O_NONBLOCK | os.O_NOFOLLOW",
        "os.O_NONBLOCK",
        "adapters/files/test_safe_open.py",
    ),
    mutant(
        "a link in a folder's place is followed",
        SAFE_OPEN,
        "_RESOLVE_NO_SYMLINKS = 0x04",
        "_RESOLVE_NO_SYMLINKS = 0",
        "adapters/files/test_safe_open.py",
    ),
    mutant(
        "a stranger's link may lead to anybody's file",
        "config/links.py",
        "if owner not in may_lead",
        "if False",
        "config/test_links.py",
    ),
    mutant(
        "a match may be somebody else's file",
        "core/sqlite/match_check.py",
        "return links > 1 and",
        "return False and",
        "core/sqlite/test_match_check.py",
    ),
    mutant(
        "who comes first by name has the file",
        SEARCH,
        "return each.spec.is_match, each.spec.name not in self._followed",
        "return each.spec.is_match, False",
        "config/test_database_search.py",
    ),
    mutant(
        "a match behind a link is taken",
        SEARCH,
        "if candidate.link:",
        "if False:",
        "config/test_database_search.py",
    ),
    mutant(
        "a path that leads elsewhere goes on with the old history",
        "engine/daemon/databases.py",
        "                    tracked.wal_pairs.check_later()",
        "                    pass",
        "engine/daemon/test_paths.py::test_a_link_from_a_file_at_rest_to_one_in_use",
    ),
)
