"""A loopback server that plays Google Drive and OneDrive, with every bad habit a host can have."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

QUOTA = b"""<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p>Too many users have viewed or downloaded this file recently.</p></body></html>"""
LOGIN = b"""<!DOCTYPE html><html><head><title>Sign in to your account</title></head>
<body>login.microsoftonline.com</body></html>"""


def virus_form(action: str, identifier: str) -> bytes:
    return f"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<p>Google Drive can't scan this file for viruses.</p><form id="download-form" action="{action}" method="get">
<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="{identifier}">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="a-b&amp;c"></form>
</body></html>""".encode()


@dataclass(frozen=True)
class Seen:
    """One request: path with query, Range and If-Range."""

    path: str
    range: str | None
    if_range: str | None


Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hosts

    def do_GET(self) -> None:
        self.server.seen.append(
            Seen(self.path, self.headers.get("Range"), self.headers.get("If-Range"))
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.behaviour(urlsplit(self.path).path)(self)

    def do_CONNECT(self) -> None:
        self.answer(407, b"", {"Proxy-Authenticate": "Basic"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@dataclass
class Hosts(ThreadingHTTPServer):
    """`drive` and `onedrive` are lists of behaviours: one a request, the last one stays."""

    drive: list[Behaviour] = field(default_factory=list)
    onedrive: list[Behaviour] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), Handler)
        self.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def behaviour(self, path: str) -> Behaviour:
        script = self.onedrive if path.startswith("/:u:/") else self.drive
        return script.pop(0) if len(script) > 1 else script[0]


@contextlib.contextmanager
def running() -> Iterator[Hosts]:
    hosts = Hosts()
    thread = threading.Thread(target=hosts.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hosts
    finally:
        hosts.shutdown()
        hosts.server_close()


# --- behaviours -----------------------------------------------------------------------------------


def page(
    body: bytes, status: int = 200, content_type: str = "text/html; charset=utf-8"
) -> Behaviour:
    return lambda handler: handler.answer(status, body, {"Content-Type": content_type})


def status(code: int) -> Behaviour:
    return lambda handler: handler.answer(code, b"no", {"Content-Type": "text/plain"})


def busy(code: int, retry_after: str) -> Behaviour:
    return lambda handler: handler.answer(code, b"no", {"Retry-After": retry_after})


def redirect(to: str) -> Behaviour:
    return lambda handler: handler.answer(302, b"", {"Location": to})


def file(body: bytes, etag: str = '"v1"', **headers: str) -> Behaviour:
    """A good server: honours Range where If-Range is the present ETag."""

    def serve(handler: Handler) -> None:
        common = {"ETag": etag, "Content-Type": "application/octet-stream", **headers}
        wanted, known = handler.headers.get("Range"), handler.headers.get("If-Range")
        if wanted and known == etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                handler.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            place = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.answer(206, body[start:], {**common, "Content-Range": place})
        else:
            handler.answer(200, body, common)

    return serve


def cut(
    body: bytes, share: float, etag: str = '"v1"', claim: int | None = None, **headers: str
) -> Behaviour:
    """Sends a share of the body (from the start), claims all of it, hangs up."""

    def serve(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in {
            "ETag": etag,
            "Content-Length": str(claim or len(body)),
            **headers,
        }.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: int(len(body) * share)])
        handler.wfile.flush()
        handler.close_connection = True

    return serve


def ignores_range(body: bytes, etag: str = '"v1"') -> Behaviour:
    return lambda handler: handler.answer(200, body, {"ETag": etag})


def refuses_range(handler: Handler) -> None:
    handler.answer(416, b"", {"Content-Range": "bytes */12"})


def wrong_range(body: bytes, etag: str = '"v1"') -> Behaviour:
    """206, but from another place than was asked for."""
    place = f"bytes 0-{len(body) - 1}/{len(body)}"
    return lambda handler: handler.answer(206, body, {"ETag": etag, "Content-Range": place})


def other_file_in_range(body: bytes) -> Behaviour:
    """206 at the right place, of a file with another ETag: what a server without If-Range does
    after a change.
    """

    def serve(handler: Handler) -> None:
        start = int(
            (handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-")
        )
        place = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.answer(206, body[start:], {"ETag": '"v2"', "Content-Range": place})

    return serve


def no_length(body: bytes) -> Behaviour:
    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return serve


def zipped(body: bytes) -> Behaviour:
    return lambda handler: handler.answer(
        200, gzip.compress(body, 1), {"Content-Encoding": "gzip", "ETag": '"v1"'}
    )


def drip(body: bytes, pause: float, total: float) -> Behaviour:
    """One byte now and then."""

    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        end, at = time.monotonic() + total, 0
        while time.monotonic() < end:
            handler.wfile.write(body[at : at + 1])
            handler.wfile.flush()
            at += 1
            time.sleep(pause)
        handler.close_connection = True

    return serve


def slow_file(
    body: bytes, seconds: float, etag: str = '"v1"', honour: Behaviour | None = None
) -> Behaviour:
    """The whole file in 50 pieces over `seconds` (a request with Range goes to `honour`)."""

    def serve(handler: Handler) -> None:
        if handler.headers.get("Range") and honour:
            honour(handler)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", etag)
        handler.end_headers()
        step = len(body) // 50 + 1
        for at in range(0, len(body), step):
            handler.wfile.write(body[at : at + step])
            handler.wfile.flush()
            time.sleep(seconds / 50)

    return serve
