"""Orders as people place them."""

from __future__ import annotations

import os
from pathlib import Path


def retail_file(path: Path, invoices: int) -> Path:
    """A file like the public data set: cancellations, gifts, adjustments, a few bad lines."""
    lines = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"]
    when = "12/1/10 8:26"
    for number in range(invoices):
        invoice = f"C{536000 + number}" if number % 10 == 9 else str(536000 + number)
        sign = -1 if number % 10 == 9 else 1
        customer = "" if number % 7 == 3 else str(17000 + number % 40)
        tail = f"{when},2.55,{customer},United Kingdom"
        lines.append(f'{invoice},85123A,"HEART, ""WHITE"" ",{sign * 6},{tail}')
        lines.append(f"{invoice},71053,LANTERN,{sign},{when},0,{customer},United Kingdom")
    lines.insert(3, f"536000,,NO STOCK CODE,1,{when},1,17000,United Kingdom")
    lines.insert(5, "536000,71053,NO NUMBER,many,12/1/10 8:26,1,17000,United Kingdom")
    path.write_text("\n".join(lines) + "\n")
    return path


def real_or_like_it(folder: Path) -> Path:
    """The public data set if RETAIL_CSV names it, else a file like it."""
    given = os.environ.get("RETAIL_CSV")
    return Path(given) if given else retail_file(folder / "orders.csv", 600)
