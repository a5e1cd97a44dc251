"""Parses XML in request bodies safely, independent of which other libraries are installed."""

from __future__ import annotations

from http import HTTPStatus
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from web.exchange.errors import HttpError

_DEPTH = 100
"""The deepest nesting of elements: writing them again takes a recursive call for each level."""


def parse(body: bytes) -> Element:
    """The root of a small document.  Raises HttpError 400 if it is malformed or has a DTD.

    No client needs a DTD, and attacks such as XXE and "billion laughs" need its entities.
    """
    try:
        root: Element = fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the body is not XML: {error}") from None
    level = [root]
    for _ in range(_DEPTH):
        level = [child for element in level for child in element]
    if level:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the body is deeper than {_DEPTH} elements")
    return root
