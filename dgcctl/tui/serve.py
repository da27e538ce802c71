"""The dashboard in a browser: textual-serve on 127.0.0.1, behind a token (textual-serve itself asks
nobody who he is).

The first request brings the token in its address and gets a cookie; every other one must bring the
cookie, the websocket too. A request under another host name, or from another page, is refused
whatever it brings: so no web page that the user visits meanwhile can reach the dashboard through a
name that it lets point to 127.0.0.1.
"""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from textual_serve.server import Server

from dgc.errors import UsageError

HOST = "127.0.0.1"
COOKIE = "dgcctl-dash"


class GuardedServer(Server):
    """textual-serve's server with a doorkeeper in front of every route."""

    def __init__(self, command: str, *, port: int, token: str, say: Callable[[str], None]) -> None:
        super().__init__(command, host=HOST, port=port, title="dgcctl dash")
        self._token, self._say = token, say

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/?token={self._token}"

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._doorkeeper())
        return app

    async def on_startup(self, app: web.Application) -> None:
        self._say(f"open {self.address}")

    def _doorkeeper(self) -> Middleware:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            refused = self._refusal(request)
            if refused:
                return web.Response(status=403, text=refused + "\n")
            if "token" in request.query:
                return self._let_in()
            return await handler(request)

        return check

    def _refusal(self, request: web.Request) -> str:
        # Against DNS rebinding: a page's own name may be made
        # to point here, but it stays the name it asks by.
        if request.host not in (f"{HOST}:{self.port}", f"localhost:{self.port}"):
            return f"refused: this server answers to {HOST}:{self.port} only"
        origin = request.headers.get("Origin")
        if origin is not None and origin not in (
            f"http://{HOST}:{self.port}",
            f"http://localhost:{self.port}",
        ):
            return "refused: asked by another page"
        given = request.query.get("token") or request.cookies.get(COOKIE, "")
        # In constant time: how long it takes tells nobody how much of a guess was right.
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return "refused: open the address with the token that `dgcctl dash --serve` printed"
        return ""

    def _let_in(self) -> web.Response:
        """Give the cookie and take the token out of the address bar."""
        # Out of the address bar, it is in no history and in no picture of the screen.
        response = web.Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})
        response.set_cookie(COOKIE, self._token, httponly=True, samesite="Strict", path="/")
        return response


def new_token() -> str:
    return secrets.token_urlsafe(24)


def free_port(wanted: int) -> int:
    """The port to listen on: the wanted one, or any for 0. Raises UsageError where it is taken."""
    with socket.socket() as probe:
        try:
            # As the server itself binds: a port whose last
            # connection has just ended is free for it.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, wanted))
        except OSError as error:
            raise UsageError(
                f"--port {wanted}: cannot be used ({error.strerror}): give another, or 0 for any"
            ) from error
        return int(probe.getsockname()[1])
