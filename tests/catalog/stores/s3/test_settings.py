"""What the s3 store is told, and how it says where and who: urls, settings, signatures."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import obstore
import pytest
from pydantic import ValidationError

from catalog.errors import InvalidValue, StoreUnavailable
from catalog.stores.s3.location import S3Location
from catalog.stores.s3.objects import _connect
from catalog.stores.s3.settings import Credentials, S3StoreSettings
from catalog.stores.s3.signing import UNSIGNED, query_string, signed
from catalog.stores.s3.store import S3Store
from catalog.stores.s3.writer import part_size

MIB = 1 << 20
SECTION: dict[str, Any] = {
    "endpoint": "https://s3.example.org",
    "bucket": "images",
    "access_key": {"env": "ACCESS"},
    "secret_key": {"env": "SECRET"},
}


def settings(**changed: object) -> S3StoreSettings:
    """Read a section as the configuration is read."""
    return S3StoreSettings.model_validate_json(json.dumps(SECTION | changed), strict=True)


# Locations, as glance_store writes them


@pytest.mark.parametrize(
    ("url", "host", "key"),
    [
        ("s3://AK:SK@s3.amazonaws.com/images/k", "s3.amazonaws.com", "k"),
        ("s3+https://AK:SK@s3.amazonaws.com/images/k", "s3.amazonaws.com", "k"),
        ("s3+http://AK:SK@127.0.0.1:8080/images/k", "127.0.0.1:8080", "k"),
        ("s3://AK:S/K/+=@host/images/k", "host", "k"),
        ("s3://AK:/SK/@host/images/k", "host", "k"),
        ("s3://test:tester:testing@host/images/k", "host", "k"),
        ("s3://AK:SK@host/v1/s3/images/k", "host/v1/s3", "k"),
        ("s3://host/images/k/", "host", "k"),
        ("s3://[::1]:80/images/k", "[::1]:80", "k"),
    ],
)
def test_location_is_read(url: str, host: str, key: str) -> None:
    """Secrets are unquoted and may hold `/`; what is printed again has none."""
    found = S3Location.parse(url)
    scheme = url.partition(":")[0]
    assert found == S3Location(scheme, host, "images", key)
    assert str(found) == f"{scheme}://{host}/images/{key}"
    assert S3Location.parse(str(found)) == found


@pytest.mark.parametrize(
    "url",
    [
        *("", "s3", "s3:", "s3://", "s3://host", "s3://host/images", "s3:///images/k"),
        *("s3://w0rd@host/images/k", "s3://AK:w0rd@https://host/images/k", "S3://h/b/k"),
        *("http://AK:w0rd@host/images/k", "s3://AK:w0rd@host", "swift+w0rd://a/b/c"),
    ],
)
def test_no_location(url: str) -> None:
    """What glance_store refuses is refused, and nothing that may be a secret is shown."""
    with pytest.raises(InvalidValue) as caught:
        S3Location.parse(url)
    assert "w0rd" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "url"),
    [
        ({}, "s3+https://s3.example.org/images/k"),
        ({"endpoint": "http://127.0.0.1:8080/"}, "s3://127.0.0.1:8080/images/k"),
        ({"prefix": "a/b"}, "s3+https://s3.example.org/images/a/b/k"),
        ({"prefix": "a/", "addressing": "virtual"}, "s3+https://s3.example.org/images/a/k"),
        ({"endpoint": "https://h/s3/"}, "s3+https://h/s3/images/k"),
    ],
)
def test_url_of_a_key(changed: dict[str, object], url: str) -> None:
    """As a Glance with the same host and bucket would write it, without credentials."""
    assert S3Store("s3", settings(**changed)).url_of("k") == url


# Settings


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"endpoint": "s3.example.org"}, "should be https://"),
        ({"endpoint": "ftp://s3.example.org"}, "should be https://"),
        ({"endpoint": "https://AK:SECRET@s3.example.org"}, "without a credential"),
        ({"endpoint": "https://s3.example.org?a=b"}, "should be https://"),
        ({"endpoint": "http://s3.example.org"}, "allow_http = true permits it"),
        ({"endpoint": "http://10.0.0.1"}, "allow_http"),
        ({"bucket": ""}, "pattern"),
        ({"bucket": "a/b"}, "pattern"),
        ({"prefix": "/a"}, "should be folders"),
        ({"prefix": "a//b"}, "should be folders"),
        ({"prefix": "../a"}, "should be folders"),
        ({"prefix": ".quarantine"}, "should be folders"),
        ({"secret_key": "SECRET"}, "should be an object"),
        ({"secret_key": {"value": "SECRET"}}, "Extra inputs"),
        ({"timeout": 0}, "greater than 0"),
        ({"ca_bundle": "/none/such.pem"}, "not point to a file"),
        ({"ca_bundle": __file__}, "holds no certificate"),
    ],
)
def test_bad_settings(changed: dict[str, object], reason: str) -> None:
    """Each is refused when the configuration is read."""
    with pytest.raises(ValidationError, match=reason):
        settings(**changed)


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]:8080", "127.8.8.8"])
def test_plain_http_on_loopback(host: str) -> None:
    """On this host nobody is on the way; elsewhere only if it is said."""
    assert not settings(endpoint=f"http://{host}").is_tls
    assert settings(endpoint="http://s3.example.org", allow_http=True).allow_http


def test_nothing_is_read_before_it_is_needed() -> None:
    """A store is made of its settings without credentials or network."""
    store = S3Store("s3", settings())
    with pytest.raises(StoreUnavailable, match="not set in the environment"):
        store.check()
    store.close()


@pytest.mark.parametrize(
    ("addressing", "url"),
    [
        ("path", "https://s3.example.org/images/k?"),
        ("virtual", "https://images.s3.example.org/k?"),
    ],
)
def test_addressing(addressing: str, url: str) -> None:
    """Both ways to ask ask for the same: obstore's requests and our own."""
    found = settings(addressing=addressing)
    assert obstore.sign(_connect(found, EXAMPLE), "GET", "k", timedelta(seconds=60)).startswith(url)
    assert url.startswith(f"{found.bucket_url}/k")


# Parts


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 70_000 * MIB, 72_000 * MIB + 1, 5 << 40])
def test_number_of_parts(size: int) -> None:
    """Parts are 8 MiB or more, and 9000 or fewer."""
    assert part_size(size) >= 8 * MIB
    assert -(-size // part_size(size)) <= 9000
    assert part_size(None) == 64 * MIB


# Signatures: the examples of the Amazon S3 API Reference

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            {},
            {
                "date": "Fri, 24 May 2013 00:00:00 GMT",
                "x-amz-storage-class": "REDUCED_REDUNDANCY",
                "x-amz-content-sha256": (
                    "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
                ),
            },
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            {"lifecycle": ""},
            {},
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            {"prefix": "J", "max-keys": "2"},
            {},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_signature(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], signature: str
) -> None:
    """Requests are signed as the reference says."""
    found = signed(
        method,
        path,
        query,
        {"host": "examplebucket.s3.amazonaws.com", "x-amz-content-sha256": EMPTY} | headers,
        credentials=EXAMPLE,
        region="us-east-1",
        now=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert found["authorization"].endswith(f"Signature={signature}")
    assert found["x-amz-date"] == "20130524T000000Z"


def test_session_token_is_signed() -> None:
    """It goes along as a header that is signed with the others, and is shown nowhere."""
    ours = Credentials(EXAMPLE.access_key, EXAMPLE.secret_key, "to/ken==")
    headers = {"host": "h", "x-amz-content-sha256": EMPTY}
    now = datetime(2013, 5, 24, tzinfo=UTC)
    found = signed("GET", "/", {}, headers, credentials=ours, region="r", now=now)
    assert found["x-amz-security-token"] == "to/ken=="
    assert "x-amz-date;x-amz-security-token" in found["authorization"]
    assert "to/ken" not in f"{ours!r}{ours}"


def test_what_is_signed_is_what_is_sent() -> None:
    """A query is sorted and quoted once."""
    assert query_string({"b": "x y/+", "a": "~ü"}) == "a=~%C3%BC&b=x%20y%2F%2B"
    assert UNSIGNED == "UNSIGNED-PAYLOAD"


def test_credentials_are_not_shown() -> None:
    """Neither in a representation nor in a traceback's."""
    assert "AKIA" not in f"{EXAMPLE!r}{EXAMPLE}{[EXAMPLE]}"
