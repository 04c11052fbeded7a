from pathlib import Path

from tests.replicas import NEXT_GENERATION, make_replica
from walsyncd.core.stored.position import Position
from walsyncd.demo.bucket import Contents, contents


def test_an_absent_folder_is_empty(tmp_path: Path) -> None:
    """The folder does not exist before the daemon's first write."""
    assert contents(tmp_path / "absent") == Contents(0, 0, 0, (), None)


def test_objects_bases_and_the_position_reached_are_counted(tmp_path: Path) -> None:
    """A base without segments reaches its own position. After that the last segment's end counts."""
    with make_replica(tmp_path, name="app.db") as replica:
        replica.base()
        found = contents(replica.root / "app.db")
        assert (found.objects, found.bases) == (2, 1)
        assert found.stored == replica.position
        replica.commit(4)
        replica.ship(every=2)
        found = contents(replica.root / "app.db")
        files = [path for path in (replica.root / "app.db").rglob("*") if path.is_file()]
        assert found == Contents(
            4, sum(file.stat().st_size for file in files), 1, (replica.generation,), replica.position
        )


def test_a_newer_generation_is_further(tmp_path: Path) -> None:
    """Positions of different generations sort by when these began."""
    with make_replica(tmp_path, name="app.db") as replica:
        replica.base()
        replica.commit(3)
        replica.ship()
        first = replica.generation
        replica.begin_generation(NEXT_GENERATION)
        replica.base()
        found = contents(replica.root / "app.db")
    assert found.generations == (first, NEXT_GENERATION)
    assert found.stored == Position(NEXT_GENERATION, 1, 0)


def test_files_that_are_not_ours_are_objects_and_no_more(tmp_path: Path) -> None:
    """They are ``owner.json`` and files of others."""
    (tmp_path / "owner.json").write_text("{}")
    assert contents(tmp_path) == Contents(1, 2, 0, (), None)
