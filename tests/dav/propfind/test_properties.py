"""PROPPATCH: image fields, custom properties and what clients keep (RFC 4918 §9.2)."""

from __future__ import annotations

import re
from itertools import count
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from catalog.model.access import ADMIN
from catalog.model.status import Status
from tests.dav.server import ANONYMOUS, Served, xml
from tests.kit.catalog import make_folder, put, some_bytes
from tests.kit.wire import Answer

_NAMESPACES = (
    'xmlns:D="DAV:" xmlns:I="urn:imagefs:image" xmlns:P="urn:imagefs:property"'
    ' xmlns:Z="urn:schemas-microsoft-com:" xmlns:x="urn:x"'
)
_numbers = count()


@pytest.fixture
def path(served: Served) -> str:
    """The path of an image of its own."""
    path = f"/file/image-{next(_numbers)}.img"
    served.add(path)
    return path


def _patch(served: Served, path: str, *steps: str) -> Answer:
    """Send `set` and `remove` steps: `+<xml>` and `-<xml>`."""
    body = "".join(
        f"<D:{verb}><D:prop>{step[1:]}</D:prop></D:{verb}>"
        for step in steps
        for verb in ("set" if step[0] == "+" else "remove",)
    )
    whole = f"<D:propertyupdate {_NAMESPACES}>{body}</D:propertyupdate>"
    return served.ask(f"PROPPATCH {path}", body=whole.encode())


def _statuses(answer: Answer) -> dict[str, int]:
    """The status of each property of a response."""
    assert answer.status == 207, answer.body
    (response,) = xml(answer).iterfind("{DAV:}response")
    return {
        element.tag.rpartition("}")[2]: int((propstat.findtext("{DAV:}status") or "").split()[1])
        for propstat in response.iterfind("{DAV:}propstat")
        for element in propstat.find("{DAV:}prop") or ()
    }


def _property(served: Served, path: str, name: str) -> Element | None:
    """A property in Clark notation, as PROPFIND gives it."""
    namespace, _, local = name.removeprefix("{").partition("}")
    body = (
        f'<D:propfind xmlns:D="DAV:"><D:prop><q:{local} xmlns:q="{namespace}"/></D:prop>'
        "</D:propfind>"
    )
    answer = served.ask(f"PROPFIND {path}", "Depth: 0", body=body.encode())
    (propstat,) = xml(answer).iterfind("{DAV:}response/{DAV:}propstat")
    if "200" not in (propstat.findtext("{DAV:}status") or ""):
        return None
    return propstat.find(f"{{DAV:}}prop/{name}")


def _text(served: Served, path: str, name: str) -> str | None:
    found = _property(served, path, name)
    return None if found is None else found.text


def test_custom_properties(served: Served, path: str) -> None:
    """They are set, changed and removed, and are the image's everywhere."""
    answer = _patch(served, path, "+<P:os_distro>debian</P:os_distro><P:note>a &lt; b</P:note>")
    assert _statuses(answer) == {"os_distro": 200, "note": 200}
    details = served.vfs.catalog.details(served.image(path).number)
    assert details.properties == {"os_distro": "debian", "note": "a < b"}
    answer = _patch(served, path, "+<P:os_distro>ubuntu</P:os_distro>", "-<P:note/>")
    assert _statuses(answer) == {"os_distro": 200, "note": 200}
    assert _text(served, path, "{urn:imagefs:property}os_distro") == "ubuntu"
    assert _property(served, path, "{urn:imagefs:property}note") is None


def test_image_fields(served: Served, path: str) -> None:
    """Fields that can be set through an extended attribute can be set here."""
    step = "+<I:visibility>private</I:visibility><I:min_disk>5</I:min_disk><I:tags>a,b</I:tags>"
    assert set(_statuses(_patch(served, path, step)).values()) == {200}
    image = served.image(path)
    assert (image.visibility, image.min_disk) == ("private", 5)
    assert _text(served, path, "{urn:imagefs:image}tags") == "a,b"


def test_deactivating(served: Served) -> None:
    """The status is changed by those who may."""
    put(served.vfs, "/file/of-root.img", some_bytes(10), ADMIN)
    step = "+<I:status>deactivated</I:status>"
    assert _statuses(_patch(served, "/file/of-root.img", step)) == {"status": 403}
    assert served.image("/file/of-root.img").status is Status.ACTIVE


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ("+<I:min_disk>many</I:min_disk>", 400),
        ("+<I:size>1</I:size>", 403),
        ("+<I:id>1</I:id>", 403),
        ("+<I:nonsense>1</I:nonsense>", 400),
        ("+<D:getetag>x</D:getetag>", 403),
        ("-<D:getcontentlength/>", 403),
        ("+<P:visibility>private</P:visibility>", 400),
        ("+<P:visiblity>private</P:visiblity>", 400),
        ("-<I:visibility/>", 403),
        ("+<P:toolong>" + "x" * 70_000 + "</P:toolong>", 400),
    ],
)
def test_all_or_nothing(served: Served, path: str, bad: str, status: int) -> None:
    """One that is refused takes the others with it, wherever it stands."""
    before = served.image(path)
    good = "+<P:os_distro>debian</P:os_distro><I:min_ram>1</I:min_ram>"
    for steps in ((good, bad), (bad, good)):
        statuses = _statuses(_patch(served, path, *steps))
        assert statuses.pop("os_distro") == 424
        assert statuses.pop("min_ram") == 424
        assert set(statuses.values()) == {status}
        assert served.image(path) == before
        assert _property(served, path, "{urn:imagefs:property}os_distro") is None


@pytest.mark.expect_log("failed unexpectedly")
def test_a_fault_is_logged_and_not_told(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wsgidav would put the exception into the answer and nowhere else."""

    def fail(*_: object) -> None:
        raise RuntimeError("a secret of this host")

    monkeypatch.setattr("catalog.rules.fields.set_attributes", fail)
    answer = _patch(served, path, "+<P:os_distro>debian</P:os_distro>")
    assert _statuses(answer) == {"os_distro": 500}
    assert b"secret" not in answer.body


def test_too_many_properties(served: Served, path: str) -> None:
    """The limit on properties holds for all of a request together."""
    step = "+" + "".join(f"<P:p{number}>x</P:p{number}>" for number in range(129))
    assert set(_statuses(_patch(served, path, step)).values()) <= {424, 507}
    assert served.vfs.catalog.details(served.image(path).number).properties == {}


def test_removing_what_is_not_there(served: Served, path: str) -> None:
    """It is no error (RFC 4918 §14.23)."""
    assert _statuses(_patch(served, path, "-<P:nothing/><x:nothing/>")) == {"nothing": 200}


def test_in_document_order(served: Served, path: str) -> None:
    """Steps are taken one after the other."""
    assert _patch(served, path, "+<P:a>1</P:a>", "-<P:a/>", "+<P:a>2</P:a>").status == 207
    assert _text(served, path, "{urn:imagefs:property}a") == "2"
    assert _patch(served, path, "+<P:a>3</P:a>", "-<P:a/>").status == 207
    assert _property(served, path, "{urn:imagefs:property}a") is None


@pytest.mark.parametrize(
    "element",
    [
        "<x:plain>text</x:plain>",
        "<x:empty/>",
        "<x:mixed>a &amp; b<x:c d='e'>f</x:c> g</x:mixed>",
        "<x:other><y:z xmlns:y='urn:y'>1</y:z></x:other>",
        "<x:lang xml:lang='de'>Bild</x:lang>",
        "<x:cyrillic>образ 像</x:cyrillic>",
        "<x:tricky a='&gt;'>x</x:tricky>",
    ],
)
def test_property_of_a_foreign_namespace(served: Served, path: str, element: str) -> None:
    """Any client's own property comes back as it was sent, markup and all."""
    assert set(_statuses(_patch(served, path, f"+{element}")).values()) == {200}
    local = re.split(r"[ />]", element[3:])[0]
    name = "{urn:x}" + local
    found = _property(served, path, name)
    assert found is not None
    sent = fromstring(f"<r {_NAMESPACES}>{element}</r>")[0]
    assert _shape(found)[2:] == _shape(sent)[2:]
    assert _statuses(_patch(served, path, f"-<x:{local}/>")) == {local: 200}
    assert _property(served, path, name) is None


def _shape(element: Element) -> tuple[object, ...]:
    text = (element.text or "", [(_shape(child), child.tail or "") for child in element])
    return (element.tag, dict(element.attrib), *text)


def test_properties_follow_the_image(served: Served, path: str) -> None:
    """MOVE keeps every property, COPY copies them."""
    assert _patch(served, path, "+<P:a>1</P:a><x:b>2</x:b>").status == 207
    assert served.ask(f"COPY {path}", f"Destination: {path}.copy").status == 201
    assert served.ask(f"MOVE {path}", f"Destination: {path}.moved").status == 201
    for target in (f"{path}.copy", f"{path}.moved"):
        assert _text(served, target, "{urn:imagefs:property}a") == "1"
        assert _text(served, target, "{urn:x}b") == "2"


def test_explorers_properties(served: Served, path: str) -> None:
    """Windows sets times and attributes after each upload: accepted, and kept nowhere."""
    step = (
        "+<Z:Win32CreationTime>Fri, 20 Nov 2026 10:00:00 GMT</Z:Win32CreationTime>"
        "<Z:Win32LastModifiedTime>Fri, 20 Nov 2026 10:00:00 GMT</Z:Win32LastModifiedTime>"
        "<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>"
    )
    make_folder(served.vfs, f"{path}.d", ANONYMOUS)
    for target in (path, f"{path}.d"):
        assert set(_statuses(_patch(served, target, step)).values()) == {200}
    assert served.vfs.catalog.details(served.image(path).number).properties == {}


def test_folder_keeps_no_properties(served: Served, path: str) -> None:
    """A folder has none of its own, and says so."""
    make_folder(served.vfs, f"{path}.d", ANONYMOUS)
    assert _statuses(_patch(served, f"{path}.d", "+<P:a>1</P:a>")) == {"a": 403}


def test_another_ones_image(served: Served) -> None:
    """Only who owns an image changes it."""
    put(served.vfs, "/file/of-another.img", some_bytes(10), ADMIN)
    assert _statuses(_patch(served, "/file/of-another.img", "+<P:a>1</P:a>")) == {"a": 403}


@pytest.mark.parametrize(
    "body",
    [
        "not XML",
        "<D:propertyupdate",
        '<D:propfind xmlns:D="DAV:"/>',
        '<!DOCTYPE x [<!ENTITY z SYSTEM "file:///etc/passwd">]><D:propertyupdate xmlns:D="DAV:">'
        '<D:set><D:prop><x xmlns="urn:x">&z;</x></D:prop></D:set></D:propertyupdate>',
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
        '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><x xmlns="urn:x">&b;</x></D:prop></D:set>'
        "</D:propertyupdate>",
        '<?xml version="1.0" encoding="nonsense"?><D:propertyupdate xmlns:D="DAV:"/>',
        '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><x xmlns="urn:x">'
        + "<b>" * 5000
        + "</b>" * 5000
        + "</x></D:prop></D:set></D:propertyupdate>",
    ],
)
def test_body_that_is_no_propertyupdate(served: Served, path: str, body: str) -> None:
    """What is malformed, too deep, another element or declares entities changes nothing."""
    assert served.ask(f"PROPPATCH {path}", body=body.encode()).status == 400
    assert served.vfs.catalog.details(served.image(path).number).properties == {}
