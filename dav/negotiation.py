"""What an answer is written as: what the client prefers of what there is (RFC 9110 §12.5.1)."""

from __future__ import annotations

import re
from enum import Enum


class Kind(Enum):
    """What an answer is written as."""

    HTML = "text/html; charset=utf-8"
    JSON = "application/json"
    TEXT = "text/plain; charset=utf-8"


def kind_for(accept: str, *, otherwise: Kind) -> Kind:
    """HTML or JSON, whichever the client prefers; `otherwise` if it names neither.

    RFC 9110 §12.5.1, of which only the two exact names matter here.
    """
    weights = dict(map(_weighted, accept.split(",")))
    html, json = weights.get("text/html", 0.0), weights.get("application/json", 0.0)
    if not html and not json:
        return otherwise
    return Kind.HTML if html >= json else Kind.JSON


def _weighted(part: str) -> tuple[str, float]:
    name, _, parameters = part.partition(";")
    weight = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters)
    return name.strip().lower(), float(weight[1]) if weight else 1.0
