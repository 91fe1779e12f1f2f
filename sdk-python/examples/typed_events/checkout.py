"""A shop that tracks with typed functions: a slip in a name or a type is found before it runs.

`events.py` is made from `events.json`:

    analytics-sdk codegen events.json -o events.py
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid4

from typed_events import events

PRICES = {"tea": 4.5, "mug": 12.0}


def view(user_id: str, cart: Mapping[str, int]) -> None:
    """Show the cart."""
    events.cart_viewed(item_count=sum(cart.values()), user_id=user_id)


def buy(user_id: str, cart: Mapping[str, int], coupon: str | None = None) -> UUID:
    """Take the money, and return the number of the order."""
    if not cart:
        raise ValueError("the cart is empty")
    order_id = uuid4()
    lines: list[events.LineItem] = [
        {"sku": sku, "quantity": quantity, "unitPrice": PRICES[sku]}
        for sku, quantity in cart.items()
    ]
    total = sum(PRICES[sku] * quantity for sku, quantity in cart.items())
    if coupon == "WELCOME":
        total = round(total * 0.9, 2)
        events.checkout_completed(
            order_id=order_id, cart_value=total, currency="EUR", items=lines, coupon=coupon,
            user_id=user_id,
        )  # fmt: skip
    else:
        events.checkout_completed(
            order_id=order_id, cart_value=total, currency="EUR", items=lines, user_id=user_id
        )
    return order_id
