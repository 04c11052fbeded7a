"""Tests of a Django project with its default settings (a rollback journal, sessions in the database) and
two workers.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import objects, restored
from tests.engine.running import Place, running, wait_for
from tests.stores import free_ports

pytest.importorskip("django", reason="it is in the extra `test`")
pytest.importorskip("gunicorn", reason="it is in the extra `test`")

pytestmark = pytest.mark.slow

VISITS = 40
VISITORS = 3
VIEWS = """
from django.db import transaction
from django.http import HttpResponse
from shop.models import Order


def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    with transaction.atomic():
        order = Order.objects.create(text="x" * 500, total=request.session["visits"])
        Order.objects.filter(pk=order.pk).update(total=order.total * 2)
    return HttpResponse(str(request.session["visits"]))
"""
MODELS = """
from django.db import models


class Order(models.Model):
    text = models.TextField()
    total = models.IntegerField()
"""


class Project:
    """The project, made by Django's own commands. Its database has the test's path."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.django("-m", "django", "startproject", "site_of_test", ".")
        self.django("manage.py", "startapp", "shop")
        (folder / "shop" / "models.py").write_text(MODELS)
        (folder / "shop" / "views.py").write_text(VIEWS)
        (folder / "site_of_test" / "urls.py").write_text(
            "from django.urls import path\nfrom shop.views import visit\nurlpatterns = [path('', visit)]\n"
        )
        settings = folder / "site_of_test" / "settings.py"
        text = settings.read_text().replace("INSTALLED_APPS = [", "INSTALLED_APPS = [\n    'shop',")
        settings.write_text(text.replace("BASE_DIR / 'db.sqlite3'", repr(str(database))))
        self._workers: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1)

    def django(self, *arguments: str) -> None:
        """Run one of Django's commands."""
        subprocess.run([sys.executable, *arguments], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def serve(self) -> None:
        """Start two workers, and wait until they answer."""
        bind = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", bind, "site_of_test.wsgi"]
        self._workers = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def visit(self, times: int) -> None:
        """Visit once, and keep the cookie of the session."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        for number in range(times):
            with opener.open(f"http://127.0.0.1:{self.port}/", timeout=60) as answer:
                assert answer.read() == str(number + 1).encode()

    def kill(self) -> None:
        """Kill the workers and their parent at once."""
        if self._workers is not None:
            os.killpg(self._workers.pid, signal.SIGKILL)
            self._workers.wait()
            self._workers = None


def test_a_django_project_is_followed_killed_and_restored(tmp_path: Path) -> None:
    """After migrations, sessions and orders, the replica is the database that the killed workers left, in one
    generation.
    """
    place = Place(tmp_path)
    path = place.database()
    project = Project(tmp_path / "project", path)
    project.django("manage.py", "makemigrations", "shop")
    with running(place.settings("app")):
        project.django("manage.py", "migrate")
        place.sync()
        generation = place.row().generation
        try:
            project.serve()
            visitors = [threading.Thread(target=project.visit, args=(VISITS,)) for _ in range(VISITORS)]
            for visitor in visitors:
                visitor.start()
            for visitor in visitors:
                visitor.join()
            project.visit(3)
        finally:
            project.kill()
        with SqliteProcess(path) as opener:  # this ends what the killed workers left
            (orders,) = opener.execute("SELECT count(*), sum(total) FROM shop_order")
            assert opener.execute("PRAGMA journal_mode") == [["delete"]]
            opener.close()
        place.sync()
        assert place.row().generation == generation
        assert len(objects(place, "*.db.zst")) == 1
    assert orders == [VISITS * VISITORS + 3, VISITORS * VISITS * (VISITS + 1) + 12]
    assert restored(place) == path.read_bytes()
    with closing(sqlite3.connect(place.folder / "restored.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*), sum(total) FROM shop_order").fetchone() == tuple(orders)
        assert copy.execute("SELECT count(*) FROM django_session").fetchone() == (VISITORS + 1,)
