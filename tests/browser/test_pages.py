"""Every page, in both themes, wide and narrow: nothing for axe to say, nothing out of sight."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.browser.test_shop import UNKNOWN, buy, wait_until_handled

pytestmark = pytest.mark.browser

# Without its own loading of style sheets: it puts <style> into the page, against our policy.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"], "preload": False}
# An order whose message the broker has refused, as far as the tables can tell.
WAITS = """
from decimal import Decimal
from django.db import connection, transaction
from demo_app.orders import Draft, Line, place_order

with transaction.atomic():
    order = place_order(Draft.now("", [Line("7", "star", 1, Decimal(1))]))
    connection.cursor().execute(
        "UPDATE outbox_todo SET state = 1, attempts = 1, due_at = '2099-01-01',"
        " error = 'NOT_ROUTED' WHERE seq = (SELECT max(seq) FROM outbox_message)"
    )
print(order.message_id)
"""
THEMES = ["light", "dark"]
WIDTHS = [1280, 360]
MODEL_DEPTH = 3
"""Slashes in the address of an app's page; those of its models have one more."""


@pytest.fixture(params=[(theme, width) for theme in THEMES for width in WIDTHS], ids=str)
def page(request, open_page) -> Page:
    theme, width = request.param
    return open_page(color_scheme=theme, viewport={"width": width, "height": 900})


@pytest.fixture
def check(page, shoot):
    """Look at the page that is open."""
    wide = page.viewport_size["width"]
    theme = (
        "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    )

    def look(name: str) -> None:
        shoot(page, f"{name}-{theme}-{wide}")
        found = Axe().run(page, options=RULES)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= wide, f"{name} scrolls"

    return look


def test_shop_basket_and_orders(page, check):
    page.goto("/orders/")
    check("orders-first")
    page.goto("/basket/")
    check("basket-empty")
    page.goto("/")
    check("catalogue")
    page.get_by_role("button", name="Add Regency Cakestand").click()
    check("catalogue-added")
    page.goto("/basket/")
    check("basket")
    buy(page, "White Metal Lantern")
    wait_until_handled(page)
    check("order")
    page.goto("/orders/")
    check("orders")


def test_message(page, check):
    buy(page, "White Metal Lantern")
    wait_until_handled(page)
    page.get_by_role("link", name="Try to break it").click()
    page.get_by_role("button", name="Deliver it twice").click()
    page.get_by_role("button", name="Send the forgery").click()
    page.get_by_text("Envelope and body").click()
    check("message")


def test_message_that_waits(page, check, shop):
    message_id = shop.python(WAITS)
    page.goto(f"/messages/{message_id}/")
    assert page.get_by_role("status").inner_text() == "Retrying"
    check("message-waiting")


def test_unknown_message(page, check, complaints):
    page.goto(UNKNOWN)
    check("message-unknown")
    # The browser reports every 404.
    complaints[:] = [text for text in complaints if "status of 404" not in text]


def test_admin(page, check, shop):
    shop.python(WAITS)
    page.goto("/admin/")
    check("admin-login")
    page.get_by_label("Username").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()
    models = page.locator(
        "#content .module a[href*='/outbox/'], #content .module a[href*='/inbox/']"
    )
    lists = {link.get_attribute("href") for link in models.all()}
    for path in sorted(each for each in lists if each.count("/") > MODEL_DEPTH):
        name = path.strip("/").replace("/", "-")
        page.goto(path)
        check(name)
        rows = page.locator("#result_list tbody th a")
        if rows.count():
            rows.first.click()
            check(f"{name}-detail")
    page.goto("/admin/outbox/outboxmessage/?state=retrying")
    page.get_by_role("checkbox").nth(1).check()
    page.get_by_label("Action:").select_option("retry_now")
    page.get_by_role("button", name="Go").click()
    check("admin-outbox-retry")
