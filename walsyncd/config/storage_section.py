"""``[storage]`` and each ``[storage.NAME]``: rules between their keys, and secrets in files of their own.

Credentials are taken from the first of these that has any:

1. ``access_key_id`` and ``secret_access_key`` (``session_token``) of ``[storage]``, file or environment
2. files of these names in ``$CREDENTIALS_DIRECTORY`` (systemd's ``LoadCredential=``)
   (for ``[storage.NAME]``: ``NAME.access_key_id`` and so on)
3. boto3's own chain: ``AWS_…`` variables, ``~/.aws``, the instance's role; ``profile`` chooses in it

The key of SSE-C is in ``sse_c_key_file``, or in the file ``sse_c_key`` in ``$CREDENTIALS_DIRECTORY``. It is 32 bytes,
raw or in base64. It is never a key of the configuration, which others may be allowed to read.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from walsyncd.config.problem import Problem, format_value, name_key
from walsyncd.config.schema import DestinationSection, StorageSection
from walsyncd.config.settings import StorageSettings

URL_HINT = "s3://bucket/prefix for object storage, file:///folder for a folder"

DEFAULT_NAME = "default"  # a [[database]] uses this name to select [storage] if [defaults] selects another storage

# Names must also work in environment variables, which ignore case and begin the next part after two underscores.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]|_(?!_))*")
# These keys are not passed to the backend as they are.
_NO_OPTIONS = {"url", "delete", "expire_after", "timeout", "sse_c_key_file"}
_KEY_NAMES = ("access_key_id", "secret_access_key", "session_token")
_SSE_C_KEY_BYTES = 32  # AES-256
_SSE_C_HINT = "32 bytes or their base64, readable by its owner only: head -c 32 /dev/urandom > KEY; chmod 600 KEY"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def storage_settings(section: DestinationSection, name: str = "") -> tuple[StorageSettings, list[Problem]]:
    """Return the settings from ``section`` and its credentials, and what is wrong with them."""
    keys, problems = _credentials(section, name)
    problem = url_problem(section.url)
    if problem:
        problems.append(Problem(_key(name, "url"), repr(section.url), problem, URL_HINT))
    problems += _lone_keys(section, name)
    encryption_key, key_problems = _encryption_key(section, name) if section.encryption == "sse-c" else (None, [])
    problems += key_problems
    options = section.model_dump(exclude=_NO_OPTIONS) | keys
    options |= {"encryption_key": encryption_key, "timeout_s": section.timeout}
    url, expire_after_s = section.url.rstrip("/"), section.expire_after
    return StorageSettings(url, name, options, section.delete, expire_after_s), problems


def all_storages(section: StorageSection) -> tuple[list[StorageSettings], list[Problem]]:
    """Return ``[storage]`` and the others, and what is wrong with them or between them."""
    storages: list[StorageSettings] = []
    problems: list[Problem] = []
    for name, each in {"": section, **section.named}.items():
        settings, found = storage_settings(each, name)
        problems += found
        if name and (not _NAME.fullmatch(name) or name == DEFAULT_NAME):
            hint = f"lower-case letters, digits, - and _, and not {DEFAULT_NAME!r}, which means [storage] itself"
            problems.append(Problem(f"storage.{name}", "", "is no name for a storage", hint))
        twin = next((other for other in storages if other.url == settings.url), None)
        if twin is not None:
            hint = "give it a prefix of its own, or select the other one"
            problems.append(Problem(_key(name, "url"), repr(settings.url), f"is the place of [{twin.section}]", hint))
        storages.append(settings)
    return storages, problems


def _key(destination: str, key: str) -> str:
    """Return the name that messages use for a section's key. If ``key`` is empty, return only the section's prefix."""
    location = ("storage", destination, key) if destination else ("storage", key)
    return name_key(location) if key else f"{'.'.join(location)}"


def _file_name(destination: str, key: str) -> str:
    """Return the name of the file in ``$CREDENTIALS_DIRECTORY`` that has a secret."""
    return f"{destination}.{key}" if destination else key


def _credentials(section: DestinationSection, destination: str) -> tuple[dict[str, str | None], list[Problem]]:
    keys = {name: getattr(section, name) for name in _KEY_NAMES}
    problems = [*_key_problems(keys, _key(destination, ""))]
    if section.profile and any(keys.values()):
        message = "there are explicit keys as well"
        problems.append(Problem(_key(destination, "profile"), repr(section.profile), message, "remove one of the two"))
    if not section.profile and not any(keys.values()):
        keys, credential_problems = _systemd_credentials(destination)
        problems += credential_problems
    return keys, problems


def _lone_keys(section: DestinationSection, destination: str) -> Iterator[Problem]:
    """Yield a problem for each key that has no effect because another key is missing, and for SSE-C without TLS."""
    needs = (
        ("kms_key_id", 'encryption = "sse-kms"', section.encryption == "sse-kms"),
        ("sse_c_key_file", 'encryption = "sse-c"', section.encryption == "sse-c"),
        ("role_external_id", "role_arn", section.role_arn is not None),
    )
    for name, wanted, is_there in needs:
        if getattr(section, name) is not None and not is_there:
            yield Problem(_key(destination, name), "", f"needs {wanted} beside it", "add it, or remove this one")
    endpoint = urlsplit(section.endpoint_url or "https://")
    if section.encryption == "sse-c" and endpoint.scheme == "http" and endpoint.hostname not in _LOOPBACK:
        message = "sse-c would send its key in the clear"
        yield Problem(_key(destination, "endpoint_url"), format_value(section.endpoint_url), message, "use https://")


def _encryption_key(section: DestinationSection, destination: str) -> tuple[bytes | None, list[Problem]]:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(folder, _file_name(destination, "sse_c_key")) if folder else None
    if section.sse_c_key_file is None and (credential is None or not credential.exists()):
        hint = f"set sse_c_key_file, or LoadCredential={_file_name(destination, 'sse_c_key')}:… in the unit"
        return None, [Problem(_key(destination, "encryption"), "'sse-c'", "there is no key for it", hint)]
    file = Path(section.sse_c_key_file) if section.sse_c_key_file is not None else credential
    assert file is not None
    try:
        content = file.read_bytes()
        is_open = stat.S_IMODE(file.stat().st_mode) & 0o007
    except OSError as error:
        return None, [Problem(f"SSE-C key {file}", "", f"can't be read: {error.strerror}", _SSE_C_HINT)]
    key = _unpacked(content)
    if key is None:
        return None, [Problem(f"SSE-C key {file}", "", "is not 32 bytes, nor the base64 of 32 bytes", _SSE_C_HINT)]
    if is_open:
        return None, [Problem(f"SSE-C key {file}", "", "can be read by everybody", f"chmod o= {file}")]
    return key, []


def _unpacked(content: bytes) -> bytes | None:
    """Return the encryption key in a file's content, or None if the content is not a key."""
    if len(content) == _SSE_C_KEY_BYTES:
        return content
    try:
        key = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        return None
    return key if len(key) == _SSE_C_KEY_BYTES else None


def _systemd_credentials(destination: str) -> tuple[dict[str, str | None], list[Problem]]:
    """Return the keys in ``$CREDENTIALS_DIRECTORY`` (None for missing ones), and what is wrong with the keys."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    keys: dict[str, str | None] = dict.fromkeys(_KEY_NAMES)
    problems = []
    for name in _KEY_NAMES if folder else ():
        file = Path(folder or "", _file_name(destination, name))
        try:
            keys[name] = file.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            hint = "see LoadCredential= of the unit"
            problems.append(Problem(f"credential {file}", "", f"can't be read: {error}", hint))
    return keys, problems or [*_key_problems(keys, f"credential {folder}/{_file_name(destination, '')}")]


def _key_problems(keys: Mapping[str, str | None], where: str) -> Iterator[Problem]:
    """Yield what is missing. A key id and its secret need each other, and a session token needs the two."""
    if not any(keys.values()):
        return
    for name in ("access_key_id", "secret_access_key"):
        if not keys[name]:
            given = next(other for other in _KEY_NAMES if keys[other])
            yield Problem(f"{where}{name}", "", f"is missing beside {given}", "give both, or neither")


def url_problem(url: str) -> str:
    """Return what is wrong with a storage URL, or ""."""
    scheme, _, rest = url.partition("://")
    if scheme not in {"s3", "file"} or not rest:
        return "is not an s3:// or file:// URL"
    if scheme == "file" and not rest.startswith("/"):
        return "a file URL has three slashes before the folder"
    bucket, _, prefix = rest.lstrip("/").rstrip("/").partition("/")
    if not bucket or (scheme == "s3" and rest.startswith("/")):
        return "names no bucket or folder"
    if any(segment in {"", ".", ".."} for segment in prefix.split("/")) and prefix:
        return "has an empty, . or .. segment"
    return ""
