from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from demo_app.models import EFFECTS, Order, OrderLine
from demo_app.retail import NotRetailError, read
from outbox.testing import captured_messages

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
GOOD = "536365,85123A,WHITE HEART,6,12/1/10 8:26,2.55,17850,United Kingdom"


def contents(*lines):
    return read([HEADER + "\n", *(line + "\n" for line in lines)])


def test_lines_of_one_invoice_are_one_order():
    found = contents(GOOD, "536366,71053,LANTERN,1,12/1/10 8:28,3.39,17851,France", GOOD)
    assert [(i.number, len(i.lines)) for i in found.invoices.values()] == [
        ("536365", 2),
        ("536366", 1),
    ]
    first = found.invoices["536365"]
    assert first.placed_at == dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)
    assert first.customer == "17850"
    assert first.lines[0].unit_price == Decimal("2.55")
    assert found.lines == 3
    assert found.skipped == []


def test_quotes_commas_blanks_and_long_years():
    line = '536365,85123A," HEART, ""WHITE"" ",6,12/1/2010 8:26,2.55,,United Kingdom'
    invoice = contents(line).invoices["536365"]
    assert invoice.lines[0].description == 'HEART, "WHITE"'
    assert invoice.customer == ""


def test_cancellations_gifts_and_adjustments_are_valid():
    found = contents(
        "C536379,D,Discount,-1,12/1/10 9:41,27.50,14527,United Kingdom",
        "536380,22139,,56,12/1/10 11:52,0,,United Kingdom",
        "536381,21090,damaged,-10,12/1/10 14:32,0,,United Kingdom",
    )
    assert found.skipped == []
    assert [i.cancels for i in found.invoices.values()] == [True, False, False]
    assert found.free_lines == 2
    assert found.adjustments == 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (GOOD.replace("85123A", ""), "it has no StockCode"),
        (GOOD.replace("536365", " "), "it has no InvoiceNo"),
        (GOOD.replace(",6,", ",many,"), "its Quantity is no whole number: 'many'"),
        (GOOD.replace(",6,", ",99999999999,"), "its Quantity is out of range: '99999999999'"),
        (GOOD.replace("2.55", "cheap"), "its UnitPrice is no number: 'cheap'"),
        (GOOD.replace("2.55", "NaN"), "its UnitPrice is out of range: 'NaN'"),
        (GOOD.replace("2.55", "1e99"), "its UnitPrice is out of range: '1e99'"),
        (GOOD.replace("12/1/10", "2010-12-01"), "its InvoiceDate is not like"),
        (GOOD + ",more", "it has not 8 fields"),
        ("536365,85123A", "it has not 8 fields"),
        (GOOD.replace("HEART", "HE\0ART"), "it holds a NUL character"),
        (GOOD.replace("85123A", "8" * 21), "its StockCode is longer than 20 characters"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_skipped(line, fault):
    found = contents(GOOD, line, GOOD)
    assert [number for number, _ in found.skipped] == [3]
    assert found.skipped[0][1].startswith(fault)
    assert found.lines == 3
    assert sum(len(i.lines) for i in found.invoices.values()) == 2


def test_a_file_of_something_else_is_refused():
    with pytest.raises(NotRetailError, match="no column InvoiceNo, StockCode"):
        read(["a,b\n", "1,2\n"])


@pytest.mark.django_db
def test_import_places_one_order_an_invoice_and_only_once(tmp_path, capsys):
    source = tmp_path / "orders.csv"
    source.write_text(f"{HEADER}\n{GOOD}\n{GOOD}\nC536379,D,Off,-1,12/1/10 9:41,27.5,14527,UK\n")
    with captured_messages() as messages:
        call_command("import_orders", str(source), dry_run=True)
        messages.none()
        call_command("import_orders", str(source))
        call_command("import_orders", str(source))
    assert messages.one("orders.placed").payload == {
        "invoice": "536365",
        "customer": "17850",
        "country": "United Kingdom",
        "placed_at": "2010-12-01T08:26:00+00:00",
        "pieces": 12,
        "total": "30.60",
    }
    assert messages.one("orders.cancelled").key == "14527"
    assert Order.objects.count() == 2
    assert OrderLine.objects.count() == 3
    output = capsys.readouterr().out
    assert "2 invoices: 1 orders, 1 cancellations; 0 without a customer" in output
    assert "2 to place, 0 were there already" in output
    assert "2 placed, 0 were there already" in output
    assert output.rstrip().endswith("0 placed, 2 were there already")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("a,b\n1,2\n")])
def test_import_says_what_is_wrong_with_the_file(tmp_path, make):
    source = tmp_path / "orders.csv"
    make(source)
    with pytest.raises(CommandError, match=r"orders\.csv"):
        call_command("import_orders", str(source))


def test_each_group_has_its_table():
    assert set(EFFECTS) == {"warehouse", "billing", "mail"}
