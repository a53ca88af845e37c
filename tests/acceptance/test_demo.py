"""The demonstration from outside: its pages, its processes, and how they end."""

from __future__ import annotations

import functools
import http.cookiejar
import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest

from tests.acceptance.project import wait_for
from tests.services.base import free_port
from tests.services.process import Proc

pytestmark = pytest.mark.acceptance


class Visitor:
    """A browser without JavaScript."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        self.at = ""

    def get(self, path: str) -> str:
        return self._open(urllib.request.Request(self.url + path))

    def post(self, path: str, **fields: str) -> str:
        token = next(cookie.value for cookie in self.jar if cookie.name == "csrftoken")
        body = urllib.parse.urlencode({**fields, "csrfmiddlewaretoken": token}).encode()
        return self._open(urllib.request.Request(self.url + path, body))

    def answers(self) -> bool:
        try:
            return bool(self.get("/"))
        except OSError:
            return False

    def _open(self, request: urllib.request.Request) -> str:
        with self.opener.open(request, timeout=30) as response:
            self.at = urllib.parse.urlsplit(response.url).path
            return response.read().decode()


@pytest.fixture
def demo(tmp_path):
    """The demonstration, with a page on any free port; its log."""
    log = tmp_path / "demo.log"
    command = [sys.executable, "manage.py", "outbox_demo", "--port", "0", "--seconds", "100"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "settings.demo",
                "DEMO_DIR": str(tmp_path / "demo"),
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def test_the_development_server_ends_by_ctrl_c_although_it_relays_and_consumes(tmp_path):
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    with subprocess.Popen(
        command,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "settings.local",
            "DEMO_DATABASE": str(tmp_path / "shop.sqlite3"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell has its background jobs ignore Ctrl-C, and who is started by them inherits that.
        preexec_fn=functools.partial(  # noqa: PLW1509 - sets one signal, takes no lock
            signal.signal, signal.SIGINT, signal.default_int_handler
        ),
    ) as server:
        try:
            shop = Visitor(f"http://127.0.0.1:{port}")
            wait_for(lambda: shop.answers() or server.poll() is not None, "the web server")
            assert "a thread of this web server" in shop.get("/")
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
        finally:
            server.kill()


@pytest.mark.timeout(240)
def test_a_visitor_kills_the_relay_and_the_message_leaves_when_it_is_back(demo, tmp_path):
    process, log = demo
    wait_for(lambda: "shop: http" in log.read_text() or process.poll() is not None, "the page")
    family = Proc.of(process.pid).family()
    shop = Visitor(re.search(r"http://[\d.:]+", log.read_text())[0])
    assert "mock cluster" in shop.get("/")

    shop.post("/basket/add/", code="22423")
    page = shop.post("/basket/order/", customer="Ada")
    message = re.search(r"/messages/[0-9a-f-]{36}/", page)[0]
    wait_for(lambda: "Handled by all 3 groups" in shop.get(message), "the first order handled")

    # The demonstration kills its relay as well; after that it is the visitor's turn.
    wait_for(lambda: "relay started again" in log.read_text(), "the show's own kill")
    before = re.search(r"a Celery worker, process (\d+)", shop.get(message))[1]
    page = shop.post(f"{message}kill/")
    assert shop.at != message
    assert f"Relay process {before} was killed" in page
    assert "being started again" in page
    assert "Waiting for the relay" in page
    assert not any(member.alive for member in family if member.pid == int(before))

    again = shop.at
    wait_for(lambda: "Handled by all 3 groups" in shop.get(again), "the second order handled")
    page = shop.get(again)
    assert "Relay started again" in page
    assert page.count(">once</td>") == 3
    assert re.search(r"a Celery worker, process (\d+)", page)[1] != before
    assert log.read_text().count("relay killed by SIGKILL") == 2

    family = Proc.of(process.pid).family()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert [member.pid for member in family if member.alive] == []
