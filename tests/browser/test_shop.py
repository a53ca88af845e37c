"""A visitor's walk: order, watch the message, try to break it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

GROUPS = ("Warehouse", "Billing", "Mail")
HOSTILE = "</script><svg onload=alert(1)>"
UNKNOWN = "/messages/00000000-0000-0000-0000-000000000000/"


def buy(page: Page, *products: str) -> None:
    page.goto("/")
    for product in products:
        page.get_by_role("button", name=f"Add {product}").click()
    page.get_by_role("link", name="Basket").click()
    page.get_by_role("button", name="Place the order").click()


def wait_until_handled(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("Handled by all 3 groups", timeout=30_000)


def steps(page: Page) -> list[str]:
    return page.locator("ol.story li strong").all_inner_texts()


def deeds(page: Page) -> dict[str, list[str]]:
    rows = page.locator("tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def test_an_order_is_handled_by_three_groups_and_the_page_says_so_by_itself(open_page):
    page = open_page()
    buy(page, "Regency Cakestand", "White Metal Lantern")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Order")
    wait_until_handled(page)
    assert steps(page)[0] == "Written"
    assert set(steps(page)) == {
        "Written",
        "Confirmed by the broker",
        "Warehouse handled it",
        "Billing handled it",
        "Mail handled it",
    }


def test_without_javascript_a_link_looks_again(open_page):
    page = open_page(java_script_enabled=False)
    buy(page, "Wicker Star")
    again = page.get_by_role("link", name="Look again")
    for _ in range(60):
        if not again.count():
            break
        again.click()
        page.wait_for_timeout(200)
    wait_until_handled(page)


def test_a_second_delivery_is_dropped_and_counted(open_page):
    page = open_page()
    buy(page, "Hand Warmer Owl")
    wait_until_handled(page)
    page.get_by_role("link", name="Try to break it").click()
    for _ in range(2):
        page.get_by_role("button", name="Deliver it twice").click()
        expect(page.get_by_text("3 dropped it as a duplicate")).to_be_visible()
    assert deeds(page) == {group: ["3", "2", "0", "once"] for group in GROUPS}
    assert "Billing dropped a duplicate" in steps(page)


def test_other_content_under_the_same_id_is_quarantined(open_page):
    page = open_page()
    buy(page, "Hand Warmer Owl")
    wait_until_handled(page)
    page.get_by_role("link", name="Try to break it").click()
    page.get_by_role("button", name="Send the forgery").click()
    assert deeds(page) == {group: ["2", "0", "1", "once"] for group in GROUPS}
    assert "Mail quarantined other content under this id" in steps(page)


def test_in_development_the_relay_cannot_be_killed_and_the_page_says_why(open_page):
    page = open_page()
    buy(page, "Hand Warmer Owl")
    page.get_by_role("link", name="Try to break it").click()
    button = page.get_by_role("button", name="Kill the relay")
    expect(button).to_be_disabled()
    expect(button).to_have_accessible_description(re.compile("make demo"))
    expect(page.get_by_role("contentinfo")).to_contain_text(
        "relay and consumers are threads of this web server"
    )


def test_the_basket_changes_by_keyboard(open_page):
    page = open_page()
    page.goto("/")
    page.get_by_role("button", name="Add White Metal Lantern").press("Enter")
    page.get_by_role("button", name="Add Wicker Star").press("Enter")
    page.get_by_role("link", name="Basket").press("Enter")
    quantity = page.get_by_label("Quantity of Wicker Star")
    quantity.fill("4")
    # Enter in a field updates; it must not remove a line.
    quantity.press("Enter")
    expect(page.get_by_text("£8.40")).to_be_visible()
    expect(page.locator(".lines > li")).to_have_count(2)
    page.get_by_role("button", name="Remove White Metal Lantern").press("Enter")
    expect(page.locator(".lines > li")).to_have_count(1)


def test_markup_in_an_order_stays_text(open_page, shop):
    invoice = shop.python(
        "from decimal import Decimal\n"
        "from demo_app.orders import Draft, Line, place_order\n"
        f"line = Line('<i>7', {HOSTILE!r}, 1, Decimal(1))\n"
        "print(place_order(Draft.now('<svg onload=x()>', [line])).invoice)"
    )
    page = open_page()
    page.goto(f"/orders/{invoice}/")
    wait_until_handled(page)
    expect(page.get_by_text(HOSTILE.title())).to_be_visible()
    page.get_by_role("link", name="Try to break it").click()
    page.get_by_text("Envelope and body").click()
    expect(page.locator("pre")).to_contain_text("<svg onload=x()>")
    page.goto("/orders/")
    expect(page.get_by_text("Order of <svg onload=x()>")).to_be_visible()
    assert page.locator("svg[onload], i").count() == 0
