"""Tests of the folders' rules: each folder has one purpose, and a table lists the arrows between folders."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "walsyncd"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({file.parent for file in MODULES} - {PACKAGE})

MAP = (PACKAGE / "__init__.py").read_text()
MODULES_MAX = 20

# The other folders of its own layer that each folder may import. tests/test_tree.py has the layers.
ARROWS = {
    "core/sqlite": set[str](),
    "core/stored": {"core/sqlite"},
    "core/follow": {"core/send", "core/sqlite", "core/stored"},
    "core/send": {"core/stored"},
    "core/restore": {"core/sqlite", "core/stored"},
    "core/content": {"core/follow", "core/sqlite", "core/stored"},
    "core/keep": {"core/restore", "core/stored"},
    "core/rollback": {"core/sqlite"},
    "adapters/files": set[str](),
    "adapters/storage": {"adapters/files", "adapters/storage/s3", "adapters/system"},
    "adapters/storage/s3": {"adapters/storage"},
    "adapters/journal": {"adapters/files"},
    "adapters/system": set[str](),
    "engine/threads": set[str](),
    "engine/backpressure": {"engine/threads"},
    "engine/content": {"engine/threads", "engine/follow"},
    "engine/follow": {"engine/read_ahead", "engine/threads"},
    "engine/read_ahead": {"engine/threads"},
    "engine/base": {"engine/follow", "engine/threads"},
    "engine/ship": {"engine/threads"},
    "engine/restore": set[str](),
    "engine/rollback": {"engine/content", "engine/follow", "engine/threads"},
    "engine/upkeep": {"engine/follow", "engine/restore", "engine/ship", "engine/threads"},
    "engine/daemon": {
        "engine/backpressure",
        "engine/base",
        "engine/content",
        "engine/follow",
        "engine/rollback",
        "engine/ship",
        "engine/threads",
        "engine/upkeep",
    },
    "cli": {"cli/commands"},
    "cli/commands": {"cli"},
}

# Words that were names here and told a newcomer nothing. The field's words replaced them.
METAPHORS = {
    "agenda",
    "bury",
    "crown",
    "eyes",
    "glance",
    "glances",
    "lane",
    "lanes",
    "leavings",
    "litter",
    "lives",
    "loan",
    "outside",
    "patiently",
    "pulse",
    "roster",
    "rota",
    "salvage",
    "seam",
    "sighting",
    "standby",
    "vouch",
    "witness",
}


def _room(file: Path) -> str:
    return str(file.parent.relative_to(PACKAGE))


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _imported_rooms(file: Path) -> Iterator[tuple[int, str]]:
    """Return line and folder of each module of walsyncd that a file imports, inside functions too."""
    for node in ast.walk(_tree(file)):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("walsyncd."):
            continue
        module = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
        for path in (module, *(module / alias.name for alias in node.names)):
            if path.with_suffix(".py").exists():
                yield node.lineno, _room(path.with_suffix(".py"))


def _defined_names(file: Path) -> Iterator[tuple[int, str]]:
    """Return line and name of all that a file defines: itself, classes, functions, parameters, fields and variables."""
    yield 1, file.stem
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def _words(name: str) -> set[str]:
    """Return the words of a name in any style: ``_seam_of``, ``SeamProof``, ``SEAMS_MAX``."""
    if name.isupper():
        return set(name.lower().split("_"))
    spaced = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return set(spaced.split("_"))


def test_arrows_between_folders_are_those_of_the_table() -> None:
    """A new arrow must be added to the table on purpose."""
    wrong = []
    for file in MODULES:
        room = _room(file)
        layer = room.split("/")[0]
        for line, target in _imported_rooms(file):
            if target.split("/")[0] == layer and target not in {room, layer} and target not in ARROWS.get(room, set()):
                wrong.append(f"walsyncd/{room}/{file.name}:{line} imports from {target}")
    assert wrong == []


def test_folders_have_no_cycle() -> None:
    """Between the folders of a layer arrows point one way.

    A store's folder counts as one with the interface that it fills in.
    """
    left = {
        room: {arrow for arrow in arrows if "s3" not in arrow} for room, arrows in ARROWS.items() if "cli" not in room
    }
    while left:
        free = {room for room, arrows in left.items() if not arrows & set(left)}
        assert free, f"a cycle among {sorted(left)}"
        left = {room: arrows for room, arrows in left.items() if room not in free}


def test_each_folder_says_in_one_line_what_it_is_for() -> None:
    """The purpose is the first line of its ``__init__.py``."""
    silent = []
    for room in ROOMS:
        told = ast.get_docstring(_tree(room / "__init__.py")) if (room / "__init__.py").exists() else None
        if not told or not told.splitlines()[0].endswith("."):
            silent.append(str(room.relative_to(PACKAGE)))
    assert silent == []


def test_no_folder_is_overfull() -> None:
    """A folder with more modules than one screen lists should be two."""
    sizes = Counter(_room(file) for file in MODULES if file.stem != "__init__")
    assert {room: size for room, size in sizes.items() if size > MODULES_MAX} == {}


def test_no_module_name_occurs_twice() -> None:
    """The last line of a traceback identifies a module by its name."""
    places = defaultdict(list)
    for file in MODULES:
        if file.stem not in {"__init__", "__main__"}:
            places[file.stem].append(_room(file))
    assert {name: rooms for name, rooms in places.items() if len(rooms) > 1} == {}


def test_no_public_class_name_means_two_things() -> None:
    """A class can be found by its name."""
    places = defaultdict(list)
    for file in MODULES:
        for node in _tree(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{_room(file)}/{file.name}")
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_name_is_a_metaphor() -> None:
    """If a name needs a story, it is the wrong name."""
    wrong = [
        f"walsyncd/{_room(file)}/{file.name}:{line} {name}"
        for file in MODULES
        for line, name in _defined_names(file)
        if _words(name) & METAPHORS
    ]
    wrong += [f"walsyncd/{room.relative_to(PACKAGE)}" for room in ROOMS if _words(room.name) & METAPHORS]
    assert wrong == []


def test_the_map_names_what_there_is() -> None:
    """Each module in the map's table exists, and has the name that the table gives."""
    section = MAP.split("Where it is decided.")[1].split("One thing has two words")[0]
    places = re.findall(r"\b(?:core|adapters|engine|config|cli)\.[\w.]+", section)
    assert len(places) > 25
    for place in places:
        module, _, name = place.rpartition(".")
        file = PACKAGE.joinpath(*place.split(".")).with_suffix(".py")
        if not file.exists():
            source = PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text()
            assert re.search(rf"^(?:class|def) {name}\b", source, re.MULTILINE), place
