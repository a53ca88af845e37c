"""Read orders from a file in the format of the UCI "Online Retail" data set."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final

from demo_app.orders import Draft, Line

COLUMNS: Final = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
_DATE_FORMATS: Final = ("%m/%d/%y %H:%M", "%m/%d/%Y %H:%M")
_PRICE_LIMIT: Final = Decimal(10) ** 9
_PRICE_DECIMALS: Final = 4
_QUANTITY_LIMIT: Final = 2**31


class NotRetailError(ValueError):
    """The file is not in the expected format."""


class BadLineError(ValueError):
    """One line cannot be used."""


@dataclass(slots=True)
class Invoice:
    """The usable lines of one invoice."""

    number: str
    customer: str
    country: str
    placed_at: dt.datetime
    lines: list[Line] = field(default_factory=list)

    @property
    def cancels(self) -> bool:
        """Whether it is a cancellation: the data set marks those by a leading C."""
        return self.number.startswith("C")

    def draft(self) -> Draft:
        """The order to place."""
        return Draft(
            invoice=self.number,
            customer=self.customer,
            country=self.country,
            placed_at=self.placed_at,
            lines=self.lines,
            cancels=self.cancels,
        )


@dataclass(slots=True)
class Contents:
    """What a file holds. ``skipped`` tells number and fault of each line that cannot be used."""

    invoices: dict[str, Invoice] = field(default_factory=dict)
    lines: int = 0
    skipped: list[tuple[int, str]] = field(default_factory=list)

    @property
    def free_lines(self) -> int:
        """Usable lines with a zero price: gifts and samples."""
        return sum(line.unit_price == 0 for i in self.invoices.values() for line in i.lines)

    @property
    def adjustments(self) -> int:
        """Usable lines with a negative quantity outside cancellations: breakage, corrections."""
        orders = (i for i in self.invoices.values() if not i.cancels)
        return sum(line.quantity < 0 for order in orders for line in order.lines)


def read(source: Iterable[str]) -> Contents:
    """Read a whole file; a line that cannot be used is noted and skipped.

    Raises `NotRetailError` if the header lacks a column.
    """
    reader = csv.DictReader(source, skipinitialspace=True)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise NotRetailError(f"The header has no column {', '.join(missing)}.")
    contents = Contents()
    for number, row in _rows(reader, contents):
        contents.lines += 1
        try:
            _add(contents, row)
        except BadLineError as error:
            contents.skipped.append((number, str(error)))
    return contents


def _rows(
    reader: csv.DictReader[str], contents: Contents
) -> Iterator[tuple[int, dict[str, str | None]]]:
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            contents.lines += 1
            contents.skipped.append((reader.line_num, str(error)))
            continue
        yield reader.line_num, row


def _add(contents: Contents, row: dict[str, str | None]) -> None:
    if any(row[name] is None for name in COLUMNS) or None in row:
        raise BadLineError(f"it has not {len(COLUMNS)} fields")
    values = {name: (row[name] or "").strip() for name in COLUMNS}
    if any("\x00" in value for value in values.values()):
        raise BadLineError("it holds a NUL character")
    number = _text(values, "InvoiceNo", 20)
    line = Line(
        stock_code=_text(values, "StockCode", 20),
        description=values["Description"][:200],
        quantity=_quantity(values["Quantity"]),
        unit_price=_price(values["UnitPrice"]),
    )
    placed_at = _date(values["InvoiceDate"])
    invoice = contents.invoices.get(number)
    if invoice is None:
        invoice = contents.invoices[number] = Invoice(
            number, values["CustomerID"][:20], values["Country"][:60], placed_at
        )
    invoice.lines.append(line)


def _text(values: dict[str, str], name: str, length: int) -> str:
    if not values[name]:
        raise BadLineError(f"it has no {name}")
    if len(values[name]) > length:
        raise BadLineError(f"its {name} is longer than {length} characters")
    return values[name]


def _quantity(text: str) -> int:
    try:
        quantity = int(text)
    except ValueError:
        raise BadLineError(f"its Quantity is no whole number: {text!r}") from None
    if abs(quantity) >= _QUANTITY_LIMIT:
        raise BadLineError(f"its Quantity is out of range: {text!r}")
    return quantity


def _price(text: str) -> Decimal:
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise BadLineError(f"its UnitPrice is no number: {text!r}") from None
    exponent = price.as_tuple().exponent
    # NaN and the infinities have no number as exponent.
    if not isinstance(exponent, int) or exponent < -_PRICE_DECIMALS or abs(price) >= _PRICE_LIMIT:
        raise BadLineError(f"its UnitPrice is out of range: {text!r}")
    return price


def _date(text: str) -> dt.datetime:
    for form in _DATE_FORMATS:
        try:
            return dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
        except ValueError:
            continue
    raise BadLineError(f"its InvoiceDate is not like 12/1/10 8:26: {text!r}")
