"""Credentials with a session token that ends, given out by radosgw's STS and checked by it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import urllib3

from catalog.errors import StoreRefused
from catalog.stores.s3.settings import Credentials, S3StoreSettings
from catalog.stores.s3.signing import signed
from catalog.stores.secret import SecretReference
from tests.kit.stores.contract import DATA, put_by_writer, read_all
from tests.kit.stores.s3_account import Account, opened
from tests.servers.ceph import S3, Ceph
from tests.servers.network.breaking_proxy import Fault, Plan, Request, proxy

LARGE = bytes(range(256)) * (9 << 12)
"""Sent in two parts."""


def ask(server: S3, **query: str) -> str:
    """A request of the services beside S3 (AWS IAM and STS), as the server's user."""
    body = urlencode(query).encode()
    headers = {
        "host": urlsplit(server.url).netloc,
        "content-type": "application/x-www-form-urlencoded",
        "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
    }
    ours = Credentials(server.access_key, server.secret_key)
    sent = signed(
        "POST", "/", {}, headers, credentials=ours, region="us-east-1", now=datetime.now(UTC)
    )
    answer = urllib3.request("POST", f"{server.url}/", body=body, headers=sent)
    assert answer.status == 200, answer.data
    return answer.data.decode()


class Agent:
    """Keeps credentials of a session in files, as a host's agent does."""

    def __init__(self, server: S3, folder: Path) -> None:
        self._server = server
        self._folder = folder

    def renew(self) -> str:
        """Begin a session and write its credentials; return its token."""
        answer = ask(self._server, Action="GetSessionToken")
        found = dict(re.findall(r"<(AccessKeyId|SecretAccessKey|SessionToken)>(.*?)</", answer))
        for name, text in found.items():
            (self._folder / name).touch(mode=0o600)
            (self._folder / name).write_text(text)
        return str(found["SessionToken"])

    def settings(self, account: Account) -> S3StoreSettings:
        """A store with these credentials."""
        return account.settings(
            access_key=SecretReference(file=self._folder / "AccessKeyId"),
            secret_key=SecretReference(file=self._folder / "SecretAccessKey"),
            session_token=SecretReference(file=self._folder / "SessionToken"),
        )


@pytest.fixture(scope="module")
def account(ceph: Ceph, rgw: S3, tmp_path_factory: pytest.TempPathFactory) -> Account:
    """A user who may have sessions, with a bucket."""
    found = Account(rgw.url, rgw.access_key, rgw.secret_key, tmp_path_factory.mktemp("secrets"))
    found.make_bucket()
    ceph.run("radosgw-admin", "caps", "add", "--uid=test", "--caps=user-policy=*")
    statement = {"Effect": "Allow", "Action": ["sts:GetSessionToken"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    ask(rgw, Action="PutUserPolicy", UserName="test", PolicyName="p", PolicyDocument=policy)
    return found


@pytest.fixture
def agent(rgw: S3, tmp_path: Path) -> Agent:
    """Nothing written yet."""
    return Agent(rgw, tmp_path)


def test_session_token_opens_the_bucket(account: Account, agent: Agent) -> None:
    """What is read by obstore and what is sent by us goes with it; without it nothing does."""
    agent.renew()
    settings = agent.settings(account)
    with opened(settings) as store:
        for data in (DATA, LARGE):
            url = put_by_writer(store)("a", data)
            assert read_all(store, url) == data
        assert list(store.keys()) == ["a"]
    with (
        opened(settings.model_copy(update={"session_token": None})) as store,
        pytest.raises(StoreRefused, match=r"refuses our credentials|forbids us"),
    ):
        store.check()


# The server gives out none for less than 15 minutes, so that the proxy says that one ended:
# as AWS does, whose answer to HEAD can have no body, and as radosgw does.
ENDED = {
    "aws": Fault(status=400, body=b"<Error><Code>ExpiredToken</Code></Error>"),
    "radosgw": Fault(status=403, body=b"<Error><Code>AccessDenied</Code></Error>"),
}


def token_of(request: Request) -> str | None:
    """The session a request belongs to."""
    return request.headers.get("x-amz-security-token")


def ended(token: str, answer: Fault) -> Plan:
    """A server that no longer takes `token`."""
    return lambda request: answer if token_of(request) == token else None


@pytest.mark.parametrize("kind", ENDED)
def test_session_that_ends_is_renewed(account: Account, agent: Agent, rgw: S3, kind: str) -> None:
    """An open reader and writers go on with what the agent has written meanwhile."""
    old = agent.renew()
    with (
        proxy(urlsplit(rgw.url).port or 0) as between,
        opened(agent.settings(account.by_way_of(between.url))) as store,
    ):
        url = put_by_writer(store)("a", DATA)
        reader = store.open(url)
        between.set_plan(ended(old, ENDED[kind]))
        requests: list[Callable[[], object]] = [
            lambda: reader.read_at(1000, 2000),
            lambda: store.stat(url),
            lambda: list(store.keys()),
            lambda: put_by_writer(store)("b", DATA),
        ]
        for request in requests:
            # Of radosgw's AccessDenied nobody can tell whether it means us or the object.
            with pytest.raises(StoreRefused, match=r"refuses our credentials|forbids us"):
                request()
        agent.renew()
        assert reader.read_at(1000, 2000) == DATA[1000:3000]
        assert read_all(store, put_by_writer(store)("b", LARGE)) == LARGE
        assert sorted(store.keys()) == ["a", "b"]


@pytest.mark.parametrize("request_", ["stat", "keys", "put"])
def test_each_request_renews(account: Account, agent: Agent, rgw: S3, request_: str) -> None:
    """Whichever is the first to find the session ended."""
    old = agent.renew()
    with (
        proxy(urlsplit(rgw.url).port or 0) as between,
        opened(agent.settings(account.by_way_of(between.url))) as store,
    ):
        url = put_by_writer(store)("a", DATA)
        between.set_plan(ended(old, ENDED["aws"]))
        agent.renew()
        {
            "stat": lambda: store.stat(url),
            "keys": lambda: list(store.keys()),
            "put": lambda: put_by_writer(store)("b", LARGE),
        }[request_]()
        assert [token_of(request) for request in between.requests].count(old) == 1
