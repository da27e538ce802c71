"""Headless Chromium over its debugging protocol: open a page, press keys, read what xterm.js shows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.waiting import GUARD, WORDS, Patience

# xterm.js paints on a canvas; its accessibility tree is off. What it was told to show is in the
# websocket's frames.
_KEYS = {"Enter": 13, "?": 191}


class Browser:
    """One page. As a context manager it ends the browser that it started."""

    def __init__(self, program: str, profile: Path) -> None:
        self._program, self._profile = program, profile
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.shown = ""

    async def __aenter__(self) -> Browser:
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1200,800",
            "--remote-debugging-port=0",
        ]
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *options,
            f"--user-data-dir={self._profile}",
            "about:blank",
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        self._session = aiohttp.ClientSession()
        port = await self._port()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            page = next(target for target in await answer.json() if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        self._listener = asyncio.create_task(self._listen())
        await self.call("Network.enable")
        await self.call("Page.enable")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.cancel()
        await self._session.close()
        self._process.terminate()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._process.wait(), GUARD)

    async def _port(self) -> int:
        file = self._profile / "DevToolsActivePort"
        patience = Patience("the browser's debugging port", self)
        while not (file.exists() and file.read_text()):
            patience.check()
            await asyncio.sleep(0.1)
        return int(file.read_text().splitlines()[0])

    async def _listen(self) -> None:
        async for message in self._socket:
            told = message.json()
            if told.get("id") in self._answers:
                self._answers.pop(told["id"]).set_result(told)
            elif told.get("method") == "Network.webSocketFrameReceived":
                self._take(told["params"]["response"])

    def _take(self, frame: dict[str, Any]) -> None:
        """What the page is told to show (binary frames come in base 64)."""
        data = frame["payloadData"]
        if frame["opcode"] == 2:
            data = base64.b64decode(data).decode("utf-8", errors="replace")
        self.shown += data

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        return await asyncio.wait_for(self._answers[number], GUARD)

    async def open(self, address: str) -> None:
        await self.call("Page.navigate", url=address)

    async def click(self, x: int, y: int) -> None:
        """A click, which also gives the page its focus."""
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )
        await asyncio.sleep(0.5)

    async def press(self, key: str, text: str) -> None:
        """One key, as a user presses it; what is shown afterwards starts anew."""
        self.shown = ""
        code = _KEYS[key]
        await self.call(
            "Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code
        )
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def until(self, holds: Callable[[str], bool], what: str) -> None:
        patience = Patience(what, self)
        while not holds(self.plain):
            patience.check()
            await asyncio.sleep(0.1)

    def poll(self) -> int | None:
        return self._process.returncode

    def last_words(self) -> str:
        return repr(self.plain[-WORDS:])

    @property
    def plain(self) -> str:
        """What was shown since the last key, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)

    async def picture(self) -> bytes:
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["result"]["data"])
