"""What the shop sells: real products and prices of the UCI "Online Retail" data set (CC BY 4.0)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final


@dataclass(frozen=True, slots=True)
class Product:
    """One article."""

    code: str
    description: str
    price: Decimal


SHELVES: Final[dict[str, list[Product]]] = {
    "Against the cold": [
        Product("22633", "HAND WARMER UNION JACK", Decimal("2.10")),
        Product("22866", "HAND WARMER SCOTTY DOG DESIGN", Decimal("2.10")),
        Product("22865", "HAND WARMER OWL DESIGN", Decimal("2.10")),
        Product("84029E", "RED WOOLLY HOTTIE WHITE HEART", Decimal("3.75")),
        Product("84029G", "KNITTED UNION FLAG HOT WATER BOTTLE", Decimal("3.75")),
        Product("22112", "CHOCOLATE HOT WATER BOTTLE", Decimal("4.95")),
    ],
    "For the tree": [
        Product("22909", "SET OF 20 VINTAGE CHRISTMAS NAPKINS", Decimal("0.85")),
        Product("22910", "PAPER CHAIN KIT VINTAGE CHRISTMAS", Decimal("2.95")),
        Product("22940", "FELTCRAFT CHRISTMAS FAIRY", Decimal("4.25")),
        Product("22144", "CHRISTMAS CRAFT LITTLE FRIENDS", Decimal("2.10")),
        Product("22694", "WICKER STAR", Decimal("2.10")),
        Product("22941", "CHRISTMAS LIGHTS 10 REINDEER", Decimal("8.50")),
    ],
    "Kitchen": [
        Product("22423", "REGENCY CAKESTAND 3 TIER", Decimal("12.75")),
        Product("22961", "JAM MAKING SET PRINTED", Decimal("1.45")),
        Product("22960", "JAM MAKING SET WITH JARS", Decimal("4.25")),
        Product("21212", "PACK OF 72 RETROSPOT CAKE CASES", Decimal("0.55")),
        Product("22666", "RECIPE BOX PANTRY YELLOW DESIGN", Decimal("2.95")),
        Product("37370", "RETRO COFFEE MUGS ASSORTED", Decimal("1.06")),
    ],
    "Around the house": [
        Product("85123A", "WHITE HANGING HEART T-LIGHT HOLDER", Decimal("2.95")),
        Product("71053", "WHITE METAL LANTERN", Decimal("3.39")),
        Product("22727", "ALARM CLOCK BAKELIKE RED", Decimal("3.75")),
        Product("84879", "ASSORTED COLOUR BIRD ORNAMENT", Decimal("1.69")),
        Product("22752", "SET 7 BABUSHKA NESTING BOXES", Decimal("7.65")),
        Product("82482", "WOODEN PICTURE FRAME WHITE FINISH", Decimal("2.10")),
    ],
}
"""Title of a shelf → what stands on it."""

PRODUCTS: Final = [product for shelf in SHELVES.values() for product in shelf]
BY_CODE: Final = {product.code: product for product in PRODUCTS}
