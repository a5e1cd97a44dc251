"""Chooses the format of an answer by what the client prefers (RFC 9110 §12.5.1)."""

from __future__ import annotations

import re
from enum import Enum


class Kind(Enum):
    """The formats of an answer."""

    HTML = "text/html; charset=utf-8"
    JSON = "application/json"
    TEXT = "text/plain; charset=utf-8"


def kind_for(accept: str, *, otherwise: Kind) -> Kind:
    """HTML or JSON, as the client prefers; `otherwise` if it names neither.

    Of RFC 9110 §12.5.1 only these two exact names are read.
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
