"""The two hosts of the released files, and the web pages they give instead of a file. No torch.

Google Drive answers 200 and HTML where the quota is used up, and a form where it would not scan the
file for viruses; OneDrive (SharePoint) answers 200 and a login page where a share link was
withdrawn. The base address of each host can be replaced (a mirror, a test server):
DGCCTL_GDRIVE_URL, DGCCTL_ONEDRIVE_URL.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from dgc import settings
from dgc.errors import NetworkError
from dgc.hub import filetype
from dgc.hub.registry import Link

GDRIVE = "https://drive.google.com"
_GOOGLE = ("google.com", "googleusercontent.com")
_LOGIN_HOSTS = ("login.microsoftonline.com", "login.live.com", "accounts.google.com")
_TITLES = {"gdrive": "Google Drive", "onedrive": "OneDrive"}


Progress = Callable[[int, int | None], None]  # bytes done, and in all where the host said it


class HostError(NetworkError):
    """One host cannot give the file now; another may."""


@dataclass(frozen=True)
class Policy:
    """How patient to be. Times in seconds;
    `stall_bytes` is the least that must come in `stall` seconds.
    """

    attempts: int = 5
    backoff: float = 1.0
    connect: float = 10.0
    stall: float = 30.0
    stall_bytes: int = 4096


@dataclass(frozen=True)
class Bases:
    """Addresses that stand in for the hosts; an empty one means the real host."""

    gdrive: str = ""
    onedrive: str = ""

    @classmethod
    def from_environment(cls) -> Bases:
        return cls(settings.gdrive_url(), settings.onedrive_url())


def download_url(link: Link, bases: Bases) -> str:
    """The address that answers with the file itself, if the host is in a good mood."""
    if link.host == "gdrive":
        # confirm=t: the answer to the virus-scan form, given before it is asked
        query = urlencode({"export": "download", "confirm": "t", "id": link.target})
        return f"{(bases.gdrive or GDRIVE).rstrip('/')}/uc?{query}"
    if link.host == "onedrive":
        return _moved(link.target, bases.onedrive, "download=1")
    return link.target


def _moved(url: str, base: str, extra: str) -> str:
    parts = urlsplit(url)
    if base:
        over = urlsplit(base)
        # scheme and host are replaced, path and query stay: a mirror is asked the same
        parts = parts._replace(scheme=over.scheme, netloc=over.netloc)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, extra)))))


def human_url(link: Link) -> str:
    """The address for a browser."""
    return f"{GDRIVE}/file/d/{link.target}/view" if link.host == "gdrive" else link.target


def plain_http_allowed(url: str, bases: Bases) -> bool:
    """Unencrypted transfers only to an address that somebody configured, or to this machine."""
    # what somebody configured is their choice; anything else must not be readable on the way
    configured = {urlsplit(base).netloc for base in (bases.gdrive, bases.onedrive) if base}
    return urlsplit(url).netloc in configured or urlsplit(url).hostname in (
        "127.0.0.1",
        "::1",
        "localhost",
    )


def is_login(url: str) -> bool:
    parts = urlsplit(url)
    return parts.hostname in _LOGIN_HOSTS or "/_layouts/15/authenticate" in parts.path.lower()


def after_page(link: Link, page: str, url: str) -> str:
    """The next address after a web page came in place of the file.

    Raises HostError saying which page it was; only the virus-scan form of Google Drive leads on.
    """
    lower = page.lower()
    if link.host == "gdrive" and (
        "quota exceeded" in lower or "too many users have viewed" in lower
    ):
        raise HostError(
            f"Google Drive quota exceeded for {link.target}; retry in 24 h or use another mirror"
        )
    form = _form(page)
    # the virus-scan page has a form that leads on; every other page is the end
    if link.host == "gdrive" and form.action and ("confirm" in form.fields or "virus" in lower):
        following = urljoin(url, form.action)
        # the answers of a form go where it says, so that must be the same owner
        if not _same_owner(following, url):
            raise HostError(
                f"the form of Google Drive leads to {urlsplit(following).hostname}; not followed"
            )
        return f"{following}{'&' if urlsplit(following).query else '?'}{urlencode(form.fields)}"
    raise HostError(_page_words(link, page, url))


def _page_words(link: Link, page: str, url: str) -> str:
    if is_login(url) or "sign in to your account" in page.lower():
        return f"{_TITLES.get(link.host, link.host)} asks to log in (link withdrawn or private)"
    kind = filetype.sniff(page.encode()[: filetype.HEAD])
    title = " ".join(html.unescape(_form(page).title).split())[:80]
    return f"answered with {kind} in place of the file" + (f" ({title!r})" if title else "")


def _same_owner(url: str, origin: str) -> bool:
    host = urlsplit(url).hostname or ""
    return urlsplit(url).netloc == urlsplit(origin).netloc or any(
        # Google gives the file from a domain of its own for content
        host == domain or host.endswith("." + domain)
        for domain in _GOOGLE
    )


class _Form(HTMLParser):
    """The first form of a page with its input fields, and the title."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.title = ""
        self.fields: dict[str, str] = {}
        self._open = self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self._in_title = tag == "title"
        if tag == "form" and not self.action:
            self.action, self._open = values.get("action", ""), True
        elif tag == "input" and self._open and values.get("name"):
            self.fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        # a title ends with any tag: one that is never closed must not take the page in
        self._in_title = False
        self._open = self._open and tag != "form"

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data


def _form(page: str) -> _Form:
    parser = _Form()
    parser.feed(page)
    return parser
