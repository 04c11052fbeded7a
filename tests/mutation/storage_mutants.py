"""Mutants of how objects get into a store, and of what counts as a proof that they are there."""

from __future__ import annotations

from tests.mutation.mutants import Mutant, mutant

STORAGE_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "an object takes a name whose condition was looked at before it was durable",
        "adapters/storage/directory.py",
        "yield is_met(folder.status(name))",
        "yield True",
        "adapters/storage/test_directory.py::test_a_condition_counts_at_the_moment_of_the_rename",
    ),
    mutant(
        "an object gets its name before it is durable",
        "adapters/storage/folder_tree.py",
        "        os.fsync(descriptor)\n        return name",
        "        return name",
        "adapters/storage/test_directory.py::test_order_of_durable_steps",
    ),
    mutant(
        "an object that is taken for stored may be lost",
        "adapters/storage/folder_tree.py",
        "            os.fsync(file.fileno())\n            folder.sync()",
        "            pass",
        "adapters/storage/test_directory.py::test_what_is_a_proof_is_durable",
    ),
    mutant(
        "a put that was killed between rename and fsync is taken for stored",
        "engine/ship/object_upload.py",
        "info = confirmed(storage, key)",
        "info = storage.head(key)",
        "engine/ship/test_object_upload.py::test_a_folder_s_object_is_made_durable_before_it_counts",
    ),
    mutant(
        "bytes that have changed in the spool are put into a folder",
        "adapters/storage/directory.py",
        "if sha256 not in {None, digest.hexdigest()}:",
        "if False:",
        "engine/ship/test_object_upload.py::test_changed_bytes_are_not_put_into_a_folder",
    ),
    mutant(
        "an upload that is open is left behind",
        "engine/ship/object_upload.py",
        " and row.upload_id is None and takes_blocks",
        " and takes_blocks",
        "engine/ship/test_object_upload.py::test_an_upload_to_a_folder_that_is_open_is_completed",
    ),
    mutant(
        "an object's name is not durable",
        "adapters/storage/folder_tree.py",
        "                        to.sync()\n",
        "",
        "adapters/storage/test_directory.py::test_order_of_durable_steps",
    ),
)
