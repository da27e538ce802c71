"""The dashboard in a browser: only here, only with the token."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from dgc.errors import UsageError
from dgcctl.tui.serve import COOKIE, HOST, GuardedServer, free_port, new_token
from tests.tui.terminal import ROOT
from tests.waiting import GUARD, wait_for

TOKEN = "t0ken-for-tests"


@pytest.fixture
async def served() -> AsyncIterator[tuple[GuardedServer, aiohttp.ClientSession]]:
    """The guarded server with a command that does nothing, and a browser without cookies."""
    server = GuardedServer("true", port=free_port(0), token=TOKEN, say=lambda line: None)
    runner = web.AppRunner(await server._make_app())
    await runner.setup()
    await web.TCPSite(runner, HOST, server.port).start()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield server, session
    await runner.cleanup()


@pytest.mark.parametrize(
    "path",
    ["/", "/ws", "/static/js/textual.js", "/download/x", "/nowhere", "/?token=wrong", "/?token="],
)
async def test_without_the_token_every_route_is_refused(served, path: str) -> None:
    server, session = served
    async with session.get(f"http://{HOST}:{server.port}{path}") as answer:
        assert answer.status == 403
        assert (await answer.text()).startswith("refused: ")


async def test_with_the_token_the_page_loads_and_the_token_leaves_the_address(served) -> None:
    server, session = served
    async with session.get(server.address) as answer:
        assert answer.status == 200
        assert "token" not in str(answer.url)
        assert "textual.js" in await answer.text()
    cookie = next(cookie for cookie in session.cookie_jar if cookie.key == COOKIE)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    async with session.get(f"http://{HOST}:{server.port}/static/js/textual.js") as answer:
        assert answer.status == 200


async def test_the_websocket_needs_the_cookie_too(served) -> None:
    server, session = served
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(f"http://{HOST}:{server.port}/ws")
    assert refused.value.status == 403
    async with session.get(server.address):
        pass
    async with session.ws_connect(f"http://{HOST}:{server.port}/ws") as socket:
        assert not socket.closed


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "127.0.0.1:1"},
    ],
)
async def test_another_name_or_another_page_is_refused_even_with_the_token(
    served, headers: dict[str, str]
) -> None:
    server, session = served
    async with session.get(server.address, headers=headers) as answer:
        assert answer.status == 403


def test_the_server_listens_on_this_machine_only() -> None:
    server = GuardedServer("true", port=8910, token=TOKEN, say=lambda line: None)
    assert server.host == "127.0.0.1"
    assert server.public_url == "http://127.0.0.1:8910"


def test_a_port_that_is_taken_is_one_line() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(
            UsageError, match=r"--port \d+: cannot be used \(.*\): give another, or 0 for any"
        ):
            free_port(taken.getsockname()[1])


def test_tokens_are_long_and_new_each_time() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(new_token()) >= 32


# --- in a real browser ----------------------------------------------------------------------------

_NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in _NAMES if (found := shutil.which(name))), None)
NO_BROWSER = pytest.mark.skipif(
    BROWSER is None, reason="needs chromium (or google-chrome) on the PATH"
)


@pytest.fixture
def running(made_runs: Path, tmp_path: Path) -> Iterator[str]:
    """`dgcctl dash --serve` as a user starts it; its address."""
    env = {**os.environ, "DGCCTL_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "dgcctl",
        "dash",
        "--serve",
        "--port",
        "0",
        "--runs-dir",
        str(made_runs),
    ]
    process = subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert found, line
        yield found[0]
    finally:
        process.terminate()
        process.wait(GUARD)


def browse(address: str, tmp_path: Path, seconds: int) -> tuple[str, bytes]:
    """What headless Chromium makes of a page after a while: its document and a picture."""
    picture = tmp_path / "page.png"
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,800", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", f"--virtual-time-budget={seconds * 1000}",
        f"--timeout={seconds * 1000}", "--dump-dom", f"--screenshot={picture}", address,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD, check=False)
    return done.stdout, picture.read_bytes() if picture.exists() else b""


@pytest.mark.slow
@NO_BROWSER
def test_chromium_is_refused_without_the_token(running: str, tmp_path: Path) -> None:
    page, _ = browse(running.partition("?")[0], tmp_path, 5)
    assert "refused: open the address with the token" in page
    assert "textual" not in page


@pytest.mark.slow
@NO_BROWSER
async def test_chromium_shows_the_runs_and_takes_keys_with_the_token(
    running: str, tmp_path: Path
) -> None:
    from tests.tui.browser import Browser

    async with Browser(str(BROWSER), tmp_path / "profile") as browser:
        await browser.open(running)
        await browser.until(lambda text: "demo_fashion" in text and "✓ done" in text, "the runs")
        await browser.click(400, 10)
        await browser.press("Enter", "\r")
        await browser.until(lambda text: "images/s" in text and "step 420/600" in text, "the run")
        await browser.press("?", "?")
        await browser.until(lambda text: "command palette" in text, "the help")
        (tmp_path / "served.png").write_bytes(await browser.picture())
    wait_for(lambda: not _dashboards(running), "the end of the dashboard", by=None, pause=0.2)


def _dashboards(address: str) -> list[int]:
    """Dashboards that a server of ours has started."""
    import psutil

    port = int(re.findall(r":(\d+)/", address)[0])
    servers = {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.laddr
        and connection.laddr.port == port
        and connection.status == psutil.CONN_LISTEN
    }
    return [
        child.pid
        for pid in servers
        if pid
        for child in psutil.Process(pid).children(recursive=True)
    ]
