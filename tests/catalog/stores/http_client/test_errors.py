"""A server that cannot be reached: which ways of that may pass."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from catalog.errors import StoreRefused, StoreUnavailable
from catalog.stores.http_client.errors import http_errors, network_error
from tests.kit.stores.s3_account import Account, opened


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (socket.EAI_NONAME, StoreRefused),
        (socket.EAI_NODATA, StoreRefused),
        (socket.EAI_AGAIN, StoreUnavailable),
        (socket.EAI_FAIL, StoreUnavailable),
    ],
)
def test_resolver_that_fails_may_work_again(number: int, kind: type[StoreUnavailable]) -> None:
    """That there is no such name is an answer; that nobody could say is none."""
    assert type(network_error("far", socket.gaierror(number, "why"))) is kind


def test_reason_is_of_this_request() -> None:
    """What is asked while another failure is handled (a check, say) tells its own reason."""
    with pytest.raises(StoreUnavailable, match="timed out") as caught, http_errors("far"):  # noqa: PT012
        try:
            raise StoreRefused("near") from socket.gaierror(socket.EAI_NONAME, "no such name")
        except StoreRefused:
            raise TimeoutError("timed out")  # noqa: B904
    assert type(caught.value) is StoreUnavailable


def test_no_such_name_is_told_at_once(tmp_path: Path) -> None:
    """By obstore as by us, and without asking again."""
    nowhere = Account("http://no-such-name.invalid", "a", "b", tmp_path)
    settings = nowhere.settings(allow_http=True, policy={"attempts": 2, "deadline": 1000})
    with opened(settings) as store:
        for attempt in (store.check, lambda: store.stat(store.url_of("a"))):
            with pytest.raises(StoreRefused, match=r"Name or service not known|No address"):
                attempt()
