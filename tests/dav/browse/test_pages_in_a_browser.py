"""The page in a real browser: a headless Chromium against a running server, with a login."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from catalog.model.status import Status
from catalog.rules import fields
from catalog.rules.users import add_user
from catalog.tree.vfs import Vfs
from dav.app import App, render_error
from tests.kit.catalog import (
    ALICE,
    begin,
    image_at,
    make_folder,
    names_in,
    new_catalog,
    put,
    read,
    settings_at,
)
from web.login.basic import Authentication
from web.server.server import Server
from web.settings import DavSettings

PATIENCE = 60
"""Seconds after which a test gives up."""
MIB = 1 << 20

_FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update --window-size=1280,900"""


class Page:
    """A browser at one server, logged in as alice."""

    def __init__(self, browser: Chrome, port: int, vfs: Vfs) -> None:
        self.browser = browser
        self.vfs = vfs
        self._base = f"http://alice:secret@127.0.0.1:{port}"

    def open(self, path: str) -> None:
        """Go to a path of the server."""
        self.browser.get(self._base + path)

    def all(self, selector: str) -> list[WebElement]:
        """The elements a CSS selector finds now."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first of them, as soon as it is there."""
        return self.wait(lambda: next(iter(self.all(selector)), None))

    def click(self, selector: str) -> None:
        """Click on an element as soon as that works."""
        self.wait(lambda: self.one(selector).is_displayed())
        self.one(selector).click()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Wait until the condition holds, while elements come and go."""
        waiting = WebDriverWait(self.browser, PATIENCE, 0.1, ignored_exceptions=[Exception])
        return waiting.until(lambda _browser: condition())

    def names(self) -> list[str]:
        """The images of the table, in order."""
        script = "return [...document.querySelectorAll('#rows [data-row]')].map(e => e.textContent)"
        return list(self.browser.execute_script(script))

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page."""
        return self.browser.execute_script(script, *arguments)

    def drop(self, *files: Path) -> None:
        """Drag files from the desktop over the page and let them go."""
        self.run(
            "const input = document.createElement('input');"
            "input.type = 'file'; input.multiple = true; input.id = 'desktop';"
            "document.body.append(input);"
        )
        self.one("#desktop").send_keys("\n".join(map(str, files)))
        self.run(
            "const input = document.getElementById('desktop');"
            "const carried = new DataTransfer();"
            "for (const file of input.files) carried.items.add(file);"
            "input.remove();"
            "for (const kind of ['dragover', 'drop'])"
            "  document.body.dispatchEvent(new DragEvent("
            "    kind, {dataTransfer: carried, bubbles: true, cancelable: true}));"
        )

    def told(self) -> list[str]:
        """What the queue of uploads says."""
        return [element.text for element in self.all("#uploads .told")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One Chromium for all tests of this file."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in _FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Its own log tells of every request with the pages in it.
    logging.getLogger("selenium").setLevel(logging.ERROR)
    chrome = Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser: Chrome, tmp_path: Path) -> Iterator[Page]:
    """The browser at a server of a new catalog; nothing may be refused by its policy."""
    catalog = new_catalog(settings_at(tmp_path))
    add_user(catalog, "alice", "secret")
    vfs = Vfs(catalog)
    app = Authentication(App(vfs), catalog, DavSettings(), render_error)
    server = Server(app, ("127.0.0.1", 0))
    server.start()
    browser.get_log("browser")
    yield Page(browser, server.port, vfs)
    messages = [entry["message"] for entry in browser.get_log("browser")]
    browser.get("about:blank")
    server.stop()
    vfs.close()
    broken = ("Content Security Policy", "Refused", "Uncaught", "MIME")
    assert not [message for message in messages if any(word in message for word in broken)]


def size_viewport(browser: Chrome, width: int, height: int) -> None:
    """Show the page on another screen."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )


@contextmanager
def slow_network(browser: Chrome) -> Iterator[None]:
    """1 MiB/s out."""
    command = "Network.emulateNetworkConditions"
    speed = {"offline": False, "latency": 0, "downloadThroughput": -1}
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd(command, {**speed, "uploadThroughput": MIB})
    yield
    browser.execute_cdp_cmd(command, {**speed, "uploadThroughput": -1})


@pytest.fixture
def phone(browser: Chrome) -> Iterator[None]:
    """A screen as narrow as a phone's."""
    size_viewport(browser, 390, 844)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def without_scripts(browser: Chrome) -> Iterator[None]:
    """No JavaScript."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# -- reading ---------------------------------------------------------------------------


def test_images_are_listed_sorted_filtered_and_opened(page: Page) -> None:
    """By clicking on heads, by typing, and by following a row."""
    for name, size in (("b.raw", 10), ("a.raw", 2000), ("c.iso", 300)):
        put(page.vfs, f"/file/{name}", b"x" * size)
    page.open("/")
    page.click("a[href='/file/']")
    page.wait(lambda: page.names() == ["a.raw", "b.raw", "c.iso"])
    page.click("th:nth-child(4) a")
    page.wait(lambda: page.names() == ["b.raw", "c.iso", "a.raw"])
    page.click("th:nth-child(4) a")
    page.wait(lambda: page.names() == ["a.raw", "c.iso", "b.raw"])
    page.one("#filter [name=q]").send_keys(".RAW")
    page.wait(lambda: page.names() == ["a.raw", "b.raw"])
    page.click("#rows a")
    page.wait(lambda: page.one("h1").text.startswith("a.raw"))
    assert image_at(page.vfs, "/file/a.raw").os_hash_value == page.one("#digest").text


@pytest.mark.usefixtures("without_scripts")
def test_everything_can_be_read_without_scripts(page: Page) -> None:
    """Tables, filter and an image's page; what needs a script is not shown."""
    put(page.vfs, "/file/a.raw")
    put(page.vfs, "/file/b.raw")
    page.open("/file/")
    assert [element.text for element in page.all("#rows [data-row]")] == ["a.raw", "b.raw"]
    assert not page.one("#choose").is_displayed()
    page.one("#filter [name=q]").send_keys("a.r", Keys.ENTER)
    page.wait(lambda: [row.text for row in page.all("#rows [data-row]")] == ["a.raw"])
    page.click("#rows a")
    assert page.one("#digest").is_displayed()
    assert not any(button.is_displayed() for button in page.all("main button"))


def test_keys_filter_move_and_open(page: Page) -> None:
    """A slash, an arrow, Enter: no hand leaves the keyboard."""
    put(page.vfs, "/file/a.raw")
    put(page.vfs, "/file/b.raw")
    page.open("/file/")
    page.wait(lambda: page.one("#choose").is_displayed())
    page.one("body").send_keys("/")
    focused = page.browser.switch_to.active_element
    assert focused.get_attribute("name") == "q"
    assert focused.get_attribute("value") == ""
    focused.send_keys(Keys.ARROW_DOWN)
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: page.one("h1").text.startswith("b.raw"))


@pytest.mark.usefixtures("phone")
def test_nothing_is_wider_than_a_phone(page: Page) -> None:
    """Long names break; no page scrolls sideways."""
    name = "n" * 200 + ".raw"
    put(page.vfs, f"/file/{name}")
    put(page.vfs, "/file/gone.raw")
    page.vfs.remove(page.vfs.place("/file/gone.raw"), ALICE)
    for path in ("/", "/file/", f"/file/{name}?page", "/file/.trash/", "/.by-id/", "/missing"):
        page.open(path)
        assert page.run("return document.documentElement.scrollWidth") <= 390, path


@pytest.mark.usefixtures("phone")
def test_a_phone_can_sort(page: Page) -> None:
    """The heads of the columns are still there to be touched."""
    put(page.vfs, "/file/a.raw", b"xx")
    put(page.vfs, "/file/b.raw", b"x")
    page.open("/file/")
    page.click("th:nth-child(4) a")
    page.wait(lambda: page.names() == ["b.raw", "a.raw"])


def test_what_takes_keys_has_a_name(page: Page) -> None:
    """Each link, button and field can be told from the others without seeing the page."""
    put(page.vfs, "/file/a.raw")
    values: dict[str, str | None] = {"property.one": "1", "property.two": "2"}
    fields.set_attributes(page.vfs.catalog, image_at(page.vfs, "/file/a.raw").number, values, ALICE)
    for name in ("b.raw", "c.raw"):
        put(page.vfs, f"/file/{name}")
        page.vfs.remove(page.vfs.place(f"/file/{name}"), ALICE)
    for path in ("/", "/file/", "/file/.trash/", "/file/a.raw?page"):
        page.open(path)
        if "?page" in path:
            page.click("button[data-edit]")
            assert page.one("[aria-controls=edit]").get_attribute("aria-expanded") == "true"
            assert page.run("return document.activeElement.closest('#edit') !== null")
        taking = page.all("main button, main input, main select, main textarea, main meter")
        names = [element.accessible_name for element in taking if element.is_displayed()]
        assert all(names), (path, names)
        assert path == "/" or len(set(names)) == len(names), (path, names)


def test_keys_stay_where_they_are_when_the_page_is_renewed(page: Page) -> None:
    """On the same link; after a button's row is gone, on the next row's."""
    for name in ("a.raw", "b.raw", "c.raw"):
        put(page.vfs, f"/file/{name}")
    page.open("/file/")
    page.run("document.querySelectorAll('#rows a')[1].focus()")
    put(page.vfs, "/file/0.raw")
    page.run("refresh()")
    page.wait(lambda: page.names()[0] == "0.raw")
    assert page.browser.switch_to.active_element.text == "b.raw"
    for name in ("a.raw", "b.raw", "c.raw"):
        page.vfs.remove(page.vfs.place(f"/file/{name}"), ALICE)
    page.open("/file/.trash/?sort=name&dir=asc")
    page.one("[data-restore]").send_keys(Keys.ENTER)
    page.wait(lambda: page.names() == ["b.raw", "c.raw"])
    assert page.browser.switch_to.active_element.accessible_name == "Restore b.raw"


def test_a_hostile_name_runs_nothing(page: Page) -> None:
    """Neither from the server's markup nor by what the script makes of it."""
    name = "<img src=x onerror=document.title='run'>'\"&.raw"
    begin(page.vfs, f"/file/{name}", b"x")
    page.open("/file/")
    page.wait(lambda: page.names() == [name])
    assert not page.all("img[src=x]")
    page.click("#rows a")
    page.wait(lambda: page.one("h1").text.startswith(name))
    assert not page.all("img[src=x]")
    assert page.browser.title != "run"


# -- uploading -------------------------------------------------------------------------


def test_a_dropped_file_is_uploaded_and_becomes_active(page: Page, tmp_path: Path) -> None:
    """100 MiB by drop: it is seen to be saved, then active, with the digest of the file."""
    file = tmp_path / "big.raw"
    data = bytes(range(256)) * (100 * MIB // 256)
    file.write_bytes(data)
    page.open("/file/")
    page.wait(lambda: page.one("#choose").is_displayed())
    page.drop(file)
    page.wait(lambda: page.told() == ["done · 100.0 MiB"])
    page.wait(lambda: page.names() == ["big.raw"] and page.one("#rows .chip").text == "active")
    image = image_at(page.vfs, "/file/big.raw")
    assert (image.status, image.owner) == (Status.ACTIVE, "alice")
    assert image.os_hash_value == hashlib.sha256(data).hexdigest()


def test_an_upload_elsewhere_is_seen_to_become_active(page: Page) -> None:
    """The page asks again by itself while something is being saved."""
    upload = begin(page.vfs, "/file/a.raw", b"x" * MIB)
    page.open("/file/")
    assert page.one("#rows .chip").text == "saving"
    upload.write(MIB, b"x" * MIB)
    page.wait(lambda: page.one("[data-size]").text == "2.0 MiB")
    upload.commit()
    page.wait(lambda: page.one("#rows .chip").text == "active")
    page.wait(lambda: not page.all("[data-busy]"))


def test_a_conflict_is_refused_before_anything_is_sent(page: Page, tmp_path: Path) -> None:
    """The image that has the name stays; the other file of the drop is uploaded."""
    put(page.vfs, "/file/a.raw", b"first")
    taken, free = tmp_path / "a.raw", tmp_path / "b ü#?%.raw"
    taken.write_bytes(b"second")
    free.write_bytes(b"third")
    page.open("/file/")
    page.wait(lambda: page.one("#choose").is_displayed())
    page.drop(taken, free)
    page.wait(lambda: len(page.told()) == 2 and page.told()[1].startswith("done"))
    assert page.told()[0] == "refused: something of that name is there already"
    assert read(page.vfs, "/file/a.raw") == b"first"
    assert read(page.vfs, f"/file/{free.name}") == b"third"


def test_a_cancelled_upload_can_be_sent_again(page: Page, tmp_path: Path) -> None:
    """What is left of the first one is in nobody's way."""
    file = tmp_path / "a.raw"
    file.write_bytes(b"x" * 20 * MIB)
    page.open("/file/")
    page.wait(lambda: page.one("#choose").is_displayed())
    with slow_network(page.browser):
        page.drop(file)
        page.wait(lambda: "/s · " in page.told()[0])
        page.click("#uploads button")
        page.wait(lambda: image_at(page.vfs, "/file/a.raw").status is Status.KILLED)
    assert page.told() == ["cancelled"]
    page.drop(file)
    page.wait(lambda: page.told()[1:] == ["done · 20.0 MiB"])
    assert image_at(page.vfs, "/file/a.raw").status is Status.ACTIVE


def test_a_refused_image_tells_why(page: Page, tmp_path: Path) -> None:
    """The catalog's own sentence stands beside the file."""
    file = tmp_path / "overlay.qcow2"
    header = bytearray(104)
    header[:8] = b"QFI\xfb\0\0\0\3"
    header[8:20] = (104).to_bytes(8, "big") + (8).to_bytes(4, "big")
    file.write_bytes(bytes(header) + b"base.raw" + bytes(MIB))
    page.open("/file/")
    page.wait(lambda: page.one("#choose").is_displayed())
    page.drop(file)
    page.wait(lambda: page.told() and page.told()[0].startswith("failed: "))
    assert "overlay.qcow2" in page.told()[0]
    page.wait(lambda: page.one("#rows .chip").text == "failed")


# -- changing --------------------------------------------------------------------------


def test_properties_are_edited(page: Page) -> None:
    """One is changed, one removed, one added, with a field, in one step."""
    put(page.vfs, "/file/a.raw")
    number = image_at(page.vfs, "/file/a.raw").number
    values: dict[str, str | None] = {"property.old": "1", "property.text": "one\ntwo"}
    fields.set_attributes(page.vfs.catalog, number, values, ALICE)
    page.open("/file/a.raw?page")
    page.click("button[data-edit]")
    page.one("#edit [name='image.visibility'] option:nth-child(4)").click()
    page.one("#edit [name='property.text']").send_keys("\nthree")
    page.click("#edit li:first-child [data-remove]")
    page.one("#edit [data-new-name]").send_keys("os_distro")
    page.one("#edit [data-new-value]").send_keys("debian")
    page.click("#edit .primary")
    page.wait(lambda: page.vfs.catalog.image(number).visibility == "private")
    properties = dict(page.vfs.catalog.details(number).properties)
    assert properties == {"text": "one\ntwo\nthree", "os_distro": "debian"}
    page.wait(lambda: "os_distro" in page.one("#details").text)


def test_a_refused_change_tells_why_and_keeps_the_form(page: Page) -> None:
    """What was typed is still there."""
    put(page.vfs, "/file/a.raw")
    page.open("/file/a.raw?page")
    page.click("button[data-edit]")
    field = page.one("#edit [name='image.min_disk']")
    field.clear()
    field.send_keys("99999999999")
    page.click("#edit .primary")
    page.wait(lambda: "min_disk" in page.one("#notices .bad").text)
    assert field.get_attribute("value") == "99999999999"


def test_an_image_goes_to_the_trash_and_comes_back(page: Page) -> None:
    """Deleted on its page, restored in the trash to the folder it was in."""
    make_folder(page.vfs, "/file/below")
    put(page.vfs, "/file/below/a ü.raw")
    page.open("/file/below/a%20%C3%BC.raw?page")
    page.click("button[data-delete]")
    page.click("#confirm-yes")
    page.wait(lambda: page.browser.current_url.endswith("/file/below/"))
    assert names_in(page.vfs, "/file/below") == set()
    page.open("/file/.trash/")
    page.click("[data-restore]")
    page.wait(lambda: names_in(page.vfs, "/file/below") == {"a ü.raw"})
    assert image_at(page.vfs, "/file/below/a ü.raw").status is Status.ACTIVE
    page.wait(lambda: page.one("h2").text == "The trash is empty")


def test_deleting_for_good_asks_first(page: Page) -> None:
    """A click that is taken back deletes nothing."""
    put(page.vfs, "/file/a.raw")
    number = image_at(page.vfs, "/file/a.raw").number
    page.vfs.remove(page.vfs.place("/file/a.raw"), ALICE)
    page.open("/file/.trash/")
    page.click("[data-delete]")
    page.click("#confirm [value='']")
    page.wait(lambda: not page.all("dialog[open]"))
    assert page.vfs.catalog.image(number).status is Status.PENDING_DELETE
    page.click("[data-delete]")
    page.click("#confirm-yes")
    page.wait(lambda: page.vfs.catalog.image(number).status is Status.DELETED)
    page.wait(lambda: page.one("h2").text == "The trash is empty")
