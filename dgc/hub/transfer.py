"""One file over HTTP into a `.part` file that survives everything: cuts, kills, changed files,
lying servers. No torch.

Beside the part lies `<part>.json` with the validators of the response it belongs to (ETag or
Last-Modified, length). A cut transfer goes on with Range + If-Range; a server that ignores the
range (200), changed the file (other ETag, 200) or cannot satisfy it (416) means to start at 0.
Nothing here decides whether the bytes are the right ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import tenacity

from dgc.errors import ResourceError
from dgc.hub import filetype
from dgc.hub.hosts import (
    Bases,
    HostError,
    Policy,
    Progress,
    after_page,
    download_url,
    is_login,
    plain_http_allowed,
)
from dgc.hub.registry import Link
from dgc.run.files import DISK_FULL, free_bytes

_PAGE_LIMIT = 1 << 19
_MAX_PAGES = 4
_BODY_STATUS = (200, 206)
_LONGEST_PAUSE = 60.0  # seconds


@dataclass(frozen=True)
class Validators:
    """What a later request must find unchanged.
    `total` is the length of the whole file where the server said it.
    """

    url: str
    etag: str = ""
    last_modified: str = ""
    total: int | None = None

    @property
    def if_range(self) -> str:
        # a weak ETag (W/) says `equivalent`, not `the same bytes`
        strong = self.etag if self.etag.startswith('"') else ""
        return strong or self.last_modified


class TryAgain(Exception):  # noqa: N818 (not an error yet)
    """This attempt failed in a way that another may not; `seconds`:
    how long the server asked to be left alone (Retry-After).
    """

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class UnreachableError(TryAgain):
    """Nobody answers at that address: asked twice, no more."""


class Transfer:
    """Fetches links with one client (cookies and proxy settings included)."""

    def __init__(self, bases: Bases, policy: Policy, progress: Progress) -> None:
        self._bases, self._policy, self._progress = bases, policy, progress

    def fetch(self, link: Link, part: Path) -> str:
        """Fill `part` with what the link gives and return the address it came from.

        Raises HostError (with what was got and expected) after `attempts` tries, at once where
        trying again is useless.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TryAgain),
            stop=self._is_enough,
            wait=self._pause,
        )
        try:
            return retrying(self._once, link, part)
        except tenacity.RetryError as error:
            last = error.last_attempt
            raise HostError(f"{last.exception()} after {last.attempt_number} attempts") from error

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        attempts = (
            # who does not answer twice in a row will not answer five times either
            min(self._policy.attempts, 2) if _is_unreachable(state) else self._policy.attempts
        )
        return state.attempt_number >= attempts

    def _pause(self, state: tenacity.RetryCallState) -> float:
        """Twice as long each time, a little by chance, and never less than the server asked for."""
        # by chance: clients that were cut off together must not come back together
        own = tenacity.wait_exponential(multiplier=self._policy.backoff)(state)
        return max(own * random.uniform(0.8, 1.2), _asked_for(state))

    def _once(self, link: Link, part: Path) -> str:
        """One attempt. Raises TryAgain where the next one may succeed,
        HostError where it cannot.
        """
        try:
            # a client an attempt: cookies and connections of a broken one are not taken along
            with self._client() as client:
                return self._attempt(client, link, part)
        except httpx.ProxyError as error:
            raise HostError(_proxy_words(str(error))) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UnreachableError(f"cannot be reached ({_words(error)})") from error
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise HostError(_words(error)) from error
        # broken off in the middle: what came is kept, and the next attempt goes on from there
        except httpx.HTTPError as error:
            raise TryAgain(f"transfer broken off ({_words(error)}); {_got(part)}") from error
        except OSError as error:
            raise _disk_words(error, part) from error

    def _client(self) -> httpx.Client:
        timeout = httpx.Timeout(self._policy.stall, connect=self._policy.connect)
        # unpacked on the way: lengths and ranges are of the file itself
        headers = {"Accept-Encoding": "identity", "User-Agent": "dgcctl"}
        hooks = {"request": [self._check_scheme]}
        return httpx.Client(
            timeout=timeout,
            headers=headers,
            follow_redirects=True,
            max_redirects=10,
            event_hooks=hooks,
        )

    def _check_scheme(self, request: httpx.Request) -> None:
        # asked of each request, so of redirections too
        if request.url.scheme != "https" and not plain_http_allowed(str(request.url), self._bases):
            raise HostError(f"leads to {request.url.host} without encryption; refused")

    def _attempt(self, client: httpx.Client, link: Link, part: Path) -> str:
        url = download_url(link, self._bases)
        # a page may lead to the next one (a form), but not for ever
        for _ in range(_MAX_PAGES):
            known = _resumable(part, url)
            headers = (
                {"Range": f"bytes={_size(part)}-", "If-Range": known.if_range} if known else {}
            )
            with client.stream("GET", url, headers=headers) as response:
                page = self._receive(response, link, part, known, url)
            if page is None:
                return str(response.url)
            url = after_page(link, page, str(response.url))
        raise HostError("one web page after another in place of the file")

    def _receive(
        self, response: httpx.Response, link: Link, part: Path, known: Validators | None, url: str
    ) -> str | None:
        """Store the body; a web page is returned instead."""
        if response.status_code == 416:
            _range_refused(response, part, known)
            return None
        _check_status(response)
        # the login page may come with any content: the address alone says what it is
        if is_login(str(response.url)):
            after_page(link, "", str(response.url))
        chunks = self._chunks(response)
        first = next(chunks, b"")
        if "text/html" in response.headers.get("content-type", "") or (
            response.status_code == 200 and filetype.is_html(first)
        ):
            return _page(first, chunks)
        start = _start(response, part, known)
        validators = _validators(response, url, start)
        # a note first: bytes without their validators could never be continued
        if not start:
            _note(part, validators)
        self._store(part, start, first, chunks, validators.total)
        _check_length(part, validators.total)
        return None

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        """The body; raises TryAgain where less than `stall_bytes` come in `stall` seconds."""
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        since, got = time.monotonic(), 0
        # raw where nothing is packed: the bytes of the file, as they are counted
        for chunk in response.iter_bytes() if encoded else response.iter_raw():
            got += len(chunk)
            if time.monotonic() - since > self._policy.stall:
                # slower than this is as good as dead: a mirror may be quick
                if got < self._policy.stall_bytes:
                    raise TryAgain(f"stalled: {got} bytes in {self._policy.stall:g} s")
                since, got = time.monotonic(), 0
            yield chunk

    def _store(
        self, part: Path, start: int, first: bytes, chunks: Iterator[bytes], total: int | None
    ) -> None:
        with part.open("r+b" if start else "wb") as file:
            # a server that starts anew (200) writes over what was there
            file.truncate(start)
            done = file.seek(start)
            for chunk in _chain(first, chunks):
                done += file.write(chunk)
                self._progress(done, total)
            file.flush()
            os.fsync(file.fileno())


def _is_unreachable(state: tenacity.RetryCallState) -> bool:
    return isinstance(state.outcome and state.outcome.exception(), UnreachableError)


def _asked_for(state: tenacity.RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    return error.seconds if isinstance(error, TryAgain) else 0.0


def discard(part: Path) -> None:
    """Forget a part and its validators."""
    part.unlink(missing_ok=True)
    _note_path(part).unlink(missing_ok=True)


def _chain(first: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from chunks


def _check_status(response: httpx.Response) -> None:
    code = response.status_code
    if code in _BODY_STATUS:
        return
    words = f"{response.url.host}: HTTP {code} {response.reason_phrase}".rstrip()
    if code == 407:
        raise HostError(_proxy_words(words))
    if code in (408, 425, 429) or code >= 500:
        seconds = _retry_after(response.headers.get("retry-after", ""))
        if seconds > _LONGEST_PAUSE:
            # nobody watches a progress line for an hour: the mirror is asked now
            raise HostError(f"{words}; asks to come back in {seconds:,.0f} s")
        raise TryAgain(words, seconds)
    gone = " (deleted or private)" if code in (401, 403, 404, 410) else ""
    raise HostError(words + gone)


def _retry_after(text: str) -> float:
    """Seconds to wait by a Retry-After header,
    which gives seconds or a date; 0 where it is neither.
    """
    if text.isdigit():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _page(first: bytes, chunks: Iterator[bytes]) -> str:
    content = bytearray(first)
    for chunk in chunks:
        content += chunk
        # a page of megabytes is none of those that are known
        if len(content) > _PAGE_LIMIT:
            break
    return content.decode("utf-8", "replace")


def _range_refused(response: httpx.Response, part: Path, known: Validators | None) -> None:
    """416: the part is as long as the file (then it is complete),
    or belongs to another file (then start anew).
    """
    total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("content-range", ""))
    if known and total and int(total[1]) == _size(part) == known.total:
        return
    discard(part)
    raise TryAgain("the server refused to go on from where the transfer was cut")


def _start(response: httpx.Response, part: Path, known: Validators | None) -> int:
    """Where this body begins: behind the part, or at 0. A 206 that does not fit costs the part."""
    if response.status_code != 206:
        return 0
    at = _size(part)
    if known and _continues(response.headers, known, at):
        return at
    discard(part)
    raise TryAgain("the file changed on the server during the transfer")


def _continues(headers: httpx.Headers, known: Validators, at: int) -> bool:
    place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("content-range", ""))
    mine = {"etag": known.etag, "last-modified": known.last_modified}
    same = all(headers.get(name, value) == value for name, value in mine.items() if value)
    return bool(place and same and int(place[1]) == at and place[2] in ("*", str(known.total)))


def _validators(response: httpx.Response, url: str, start: int) -> Validators:
    headers = response.headers
    if headers.get("content-encoding", "identity") != "identity":
        # the length is that of the packed form, and a packed stream cannot be continued
        return Validators(url)
    length = headers.get("content-length", "")
    total = start + int(length) if length.isdigit() else None
    return Validators(url, headers.get("etag", ""), headers.get("last-modified", ""), total)


def _note_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _note(part: Path, validators: Validators) -> None:
    # the new note must not vouch for the bytes of an older part
    part.unlink(missing_ok=True)
    _note_path(part).write_text(json.dumps(asdict(validators)), encoding="utf-8")


def _resumable(part: Path, url: str) -> Validators | None:
    """The validators of a part that can be continued from this address; otherwise None."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        # a note that cannot be read is no note
        known = Validators(**json.loads(_note_path(part).read_text(encoding="utf-8")))
        size = _size(part)
        if (
            known.url == url
            and known.if_range
            and size
            and (known.total is None or size <= known.total)
        ):
            return known
    return None


def _check_length(part: Path, total: int | None) -> None:
    if total is not None and _size(part) != total:
        raise TryAgain(f"got {_size(part):,} of {total:,} bytes")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _got(part: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError):
        total = json.loads(_note_path(part).read_text(encoding="utf-8"))["total"]
        return f"got {_size(part):,} of {total:,} bytes" if total else f"got {_size(part):,} bytes"
    return f"got {_size(part):,} bytes"


def _words(error: Exception) -> str:
    return str(error).split("\n")[0][:120] or type(error).__name__


def _disk_words(error: OSError, part: Path) -> Exception:
    if error.errno not in DISK_FULL:
        return error
    return ResourceError(
        f"{part}: cannot write ({error.strerror}; {free_bytes(part):,} bytes free): free some space"
        " or choose another folder with DGCCTL_CACHE_DIR; the transfer goes on from there"
    )


def _proxy_words(detail: str) -> str:
    return (
        f"the proxy refuses ({detail[:100]}): set HTTPS_PROXY with user and password, or unset it"
    )
