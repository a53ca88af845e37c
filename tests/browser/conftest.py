"""The shop in a real Chromium, served by `manage.py runserver` alone."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from demo_app.demo.processes import Process, manage
from tests.acceptance.project import wait_for
from tests.services.base import free_port


@dataclass(frozen=True)
class Shop:
    url: str
    env: dict[str, str]

    def python(self, code: str) -> str:
        """Run this in the project, as a process of its own; its output."""
        return subprocess.run(
            [sys.executable, "-c", f"import django\ndjango.setup()\n{code}"],
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()


@pytest.fixture(scope="package")
def shop(tmp_path_factory) -> Iterator[Shop]:
    """A fresh clone's first minute: no migration, no worker, only the web server."""
    folder = tmp_path_factory.mktemp("shop")
    port = free_port()
    env = {
        "DJANGO_SETTINGS_MODULE": "settings.local",
        "DEMO_DATABASE": str(folder / "shop.sqlite3"),
    }
    server = Process("web", manage("runserver", "--noreload", f"127.0.0.1:{port}"), env, folder)
    server.start()
    shop = Shop(f"http://127.0.0.1:{port}", env)
    try:
        wait_for(lambda: answers(shop.url) or not server.running, "the web server")
        assert server.running, server.log.read_text()
        yield shop
    finally:
        server.stop()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


# Not longer than these tests: Playwright leaves an event loop running, beside which Django's ORM
# refuses to work.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    # Chromium's sandbox refuses to work for root, which is who runs the tests in a container.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """Errors and warnings of the console; what is left at the end fails the test."""
    return []


@pytest.fixture
def open_page(chromium, shop, complaints):
    """Make a page: of a visitor of its own, and without a complaint of the browser at the end."""
    contexts: list[BrowserContext] = []

    def hear(page: Page, said: ConsoleMessage) -> None:
        # A violation of the content security policy is one of them.
        if said.type in ("error", "warning"):
            complaints.append(f"{page.url}: {said.text}")

    def make(**options) -> Page:
        context = chromium.new_context(base_url=shop.url, **options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", functools.partial(hear, page))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def shoot():
    """Keep a picture, if OUTBOX_SCREENSHOTS names a folder."""
    folder = os.environ.get("OUTBOX_SCREENSHOTS")

    def keep(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep
