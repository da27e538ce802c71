"""A released checkpoint into the cache: fetched, checked, pinned, and only then given its name. No
torch.

Order of a download: cached? -> one lock a file -> each host in turn into a .part -> size -> kind ->
static inspection of every pickle -> digest (known, pinned, or both hosts agree) -> fsync, rename ->
pin. No wrong byte is ever at the final path, and a good file there stays until a better one is
complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from dgc import settings
from dgc.errors import DataError, IntegrityError, NetworkError
from dgc.hub import filetype, scan
from dgc.hub.cache import Cache, Pin, PinFile, Say, hold, now
from dgc.hub.hosts import Bases, HostError, Policy, Progress, human_url
from dgc.hub.registry import Link, ReleasedCheckpoint, layout_digest
from dgc.hub.scan import Inspection
from dgc.run.files import fsync_dir, sha256_of


def _silent(_: str) -> None:
    return


def _no_progress(_done: int, _total: int | None) -> None:
    return


@dataclass(frozen=True)
class FetchOptions:
    """How to download. `say` gets whole lines for the user, `progress` bytes done and in all."""

    cross_check: bool = False
    repin: bool = False
    offline: bool = field(default_factory=settings.offline)
    bases: Bases = field(default_factory=Bases.from_environment)
    policy: Policy = field(default_factory=Policy)
    say: Say = _silent
    progress: Progress = _no_progress


@dataclass(frozen=True)
class Fetched:
    """A checkpoint in the cache. `origin` is `cache` where nothing was fetched; `inspection` is
    there where the file was looked at on the way.
    """

    path: Path
    sha256: str
    origin: str
    pin: Pin
    inspection: Inspection | None = None

    def inspect(self) -> Inspection:
        """The static inspection, done now unless it was done. Raises what `scan.inspect` does."""
        found = self.inspection or scan.inspect(self.path)
        if found.sha256 != self.sha256:
            raise IntegrityError(f"{self.path}: was changed after its digest was checked; refused")
        return found


@dataclass(frozen=True)
class _Candidate:
    """A complete, inspected part that is not trusted yet."""

    inspection: Inspection
    url: str
    host: str

    @property
    def part(self) -> Path:
        return self.inspection.path

    @property
    def sha256(self) -> str:
        return self.inspection.sha256


def download(
    entry: ReleasedCheckpoint, cache: Cache, options: FetchOptions | None = None
) -> Fetched:
    """Bring a released checkpoint into the cache (or find it there) and return where it lies.

    Raises NetworkError (6; every host's reason, the link and the import command), IntegrityError
    (4; both digests, when pinned and from where), UnsafeFileError (5), ResourceError (7).
    """
    options = options or FetchOptions()
    # Without the lock: a cached file is only read, also from a cache that cannot be written.
    if not (options.repin or options.cross_check) and (found := cached(entry, cache)):
        return found
    if options.offline:
        raise NetworkError(
            f"{entry.name}: not in the cache {cache.folder}, and DGCCTL_OFFLINE is set."
            f" {by_hand(entry)}"
        )
    try:
        with hold(cache.lock(entry.file), options.say):
            # And again within it: whoever held the lock may have fetched the file while we
            # waited.
            if not (options.repin or options.cross_check) and (found := cached(entry, cache)):
                return found
            return _fetch(entry, cache, options)
    except OSError as error:
        raise NetworkError(
            f"{entry.name}: the cache {cache.folder} cannot be written ({error.strerror or error});"
            f" choose another with DGCCTL_CACHE_DIR. {by_hand(entry)}"
        ) from error


def by_hand(entry: ReleasedCheckpoint) -> str:
    """What to do where no host gives the file."""
    links = " or ".join(human_url(link) for link in entry.links)
    return (
        f"Fetch it with a browser from {links} and run: dgcctl ckpt import FILE --name {entry.name}"
    )


def absent(entry: ReleasedCheckpoint, cache: Cache) -> NetworkError:
    """The error of a command that works on the cache alone."""
    return NetworkError(
        f"{entry.name}: not in the cache {cache.folder}: dgcctl ckpt download {entry.name}."
        f" {by_hand(entry)}"
    )


def cached(entry: ReleasedCheckpoint, cache: Cache) -> Fetched | None:
    """The file in the cache, its digest checked;
    None where there is none. Works offline and read-only.
    """
    path = cache.file(entry.file)
    # absent is no error here: the caller downloads, or says what to do
    if not path.is_file():
        return None
    digest, pins = sha256_of(path), PinFile(cache.pins)
    pin = pins.get(entry.name)
    _check_digest(
        entry,
        digest,
        pin,
        str(path),
        "move it away, or trust it with `dgcctl ckpt download --repin`",
    )
    # a file from before there were pins, or from another
    # cache: trusted on first use, as a download is
    if pin is None:
        pin = Pin(digest, path.stat().st_size, f"cache:{path}", now())
        # a read-only cache without a pin is used, and pinned nowhere
        with contextlib.suppress(OSError):
            pins.set(entry.name, pin)
    return Fetched(path, digest, "cache", pin)


def _check_digest(
    entry: ReleasedCheckpoint, digest: str, pin: Pin | None, origin: str, remedy: str
) -> None:
    """Refuse a digest that is not the known or pinned one."""
    # What the registry knows goes before any pin, and no --repin moves it.
    if entry.sha256 and digest != entry.sha256:
        raise IntegrityError(
            f"{entry.name}: sha256 {digest} from {origin}, but the registry knows {entry.sha256};"
            " refused"
        )
    if pin and digest != pin.sha256:
        raise IntegrityError(f"{entry.name}: sha256 {digest} from {origin}, but {pin}; {remedy}")


def _fetch(entry: ReleasedCheckpoint, cache: Cache, options: FetchOptions) -> Fetched:
    pin = PinFile(cache.pins).get(entry.name)
    candidates = _candidates(entry, cache, options)
    best = candidates[0]
    # before any pin is asked: hosts that disagree are a reason to trust none of them
    if any(other.sha256 != best.sha256 for other in candidates):
        _drop(candidates)
        told = ", ".join(f"{c.host} gives sha256 {c.sha256}" for c in candidates)
        raise IntegrityError(f"{entry.name}: the hosts disagree: {told}; nothing was kept of it")
    # --repin means: trust what comes now, whatever was pinned. That is for digests that nobody
    # knows.
    if not options.repin or entry.sha256:
        try:
            _check_digest(entry, best.sha256, pin, best.url, _kept(entry, cache))
        except IntegrityError:
            _drop(candidates)
            raise
    return _commit(entry, cache, candidates, options.say)


def _kept(entry: ReleasedCheckpoint, cache: Cache) -> str:
    kept = (
        "the cached file is kept" if cache.file(entry.file).exists() else "nothing was kept of it"
    )
    return f"{kept}. If you trust the new one: dgcctl ckpt download {entry.name} --repin"


def _candidates(entry: ReleasedCheckpoint, cache: Cache, options: FetchOptions) -> list[_Candidate]:
    """One good candidate from the first host that gives it; with cross_check, from every host."""
    found: list[_Candidate] = []
    reasons: list[str] = []
    for position, link in enumerate(entry.links):
        try:
            found.append(_candidate(entry, cache, link, options))
        except HostError as error:
            # a host that cannot give it is no error as long as another can
            reasons.append(f"{link.host}: {error}")
            if position + 1 < len(entry.links):
                options.say(
                    f"{link.host}: {error}; trying the mirror {entry.links[position + 1].host}"
                )
        if found and not options.cross_check:
            return found
    # with --cross-check one host that failed is enough: the comparison was the point
    if not found or reasons:
        _drop(found)
        wanted = "not every host gave the file to compare" if found else "no host gave the file"
        raise NetworkError(f"{entry.name}: {wanted} ({'; '.join(reasons)}). {by_hand(entry)}")
    return found


def _candidate(
    entry: ReleasedCheckpoint, cache: Cache, link: Link, options: FetchOptions
) -> _Candidate:
    """Fetch from one host and look at what came.
    A part that was patched together gets one second chance from 0.
    """
    # here, because most of those who ask for weights download none, and HTTP takes long to import
    from dgc.hub.transfer import Transfer

    part = cache.part(entry.file, link.host)
    # The first half may be days old. If the whole is damaged, it was perhaps patched together
    # from two versions of the file: one more try, from the start, tells.
    resumed = part.exists()
    transfer = Transfer(options.bases, options.policy, options.progress)
    url = transfer.fetch(link, part)
    try:
        return _inspected(entry, link, part, url)
    except (HostError, IntegrityError) as error:
        _discard(part)
        if not resumed:
            raise HostError(str(error)) from error
        options.say(f"{link.host}: the resumed file is damaged; fetching it again from the start")
        return _inspected(entry, link, part, transfer.fetch(link, part))


def _discard(part: Path) -> None:
    from dgc.hub.transfer import discard

    discard(part)


def _inspected(entry: ReleasedCheckpoint, link: Link, part: Path, url: str) -> _Candidate:
    size, (least, most) = part.stat().st_size, entry.size_range
    kind = filetype.sniff(filetype.read_head(part))
    # a web page or a picture where a checkpoint should be: another host may do better
    if kind not in (filetype.ZIP, filetype.LEGACY):
        raise HostError(f"gave {kind} ({size:,} bytes) in place of the file")
    if not least <= size <= most:
        raise HostError(
            f"gave {size:,} bytes, expected {least:,} to {most:,} ({entry.size_mib} MiB)"
        )
    try:
        return _Candidate(scan.inspect(part), url, link.host)
    # Damaged means that another host may give a good one. What wants to run code
    # (UnsafeFileError) is not asked for again anywhere.
    except IntegrityError as error:
        raise HostError(f"gave a damaged file: {error}") from error
    except Exception:
        _discard(part)
        # what was refused as unsafe is not kept for a second try
        raise


def _drop(candidates: list[_Candidate]) -> None:
    for candidate in candidates:
        _discard(candidate.part)


def _commit(
    entry: ReleasedCheckpoint, cache: Cache, candidates: list[_Candidate], say: Say
) -> Fetched:
    best, path = candidates[0], cache.file(entry.file)
    size = best.inspection.file_bytes
    # File first, pin second: a kill in between leaves a file that is trusted on first use once
    # more, with the same digest. The other way round leaves a pin of nothing.
    os.replace(best.part, path)  # the transfer has fsynced it
    inspection = replace(best.inspection, path=path)
    fsync_dir(path.parent)
    _drop(candidates)
    # more than one host: they have been compared, and gave the same bytes
    hosts = tuple(c.host for c in candidates) if len(candidates) > 1 else ()
    pins = PinFile(cache.pins)
    old = pins.get(entry.name)
    # pinned as it is already: the older date and origin say more
    if old and old.sha256 == best.sha256 and not hosts:
        return Fetched(path, best.sha256, best.url, old, inspection)
    pin = Pin(best.sha256, size, best.url, now(), hosts)
    pins.set(entry.name, pin)
    how = f"given alike by {' and '.join(hosts)}" if hosts else "trusted on first use"
    say(f"{entry.name}: sha256 {best.sha256} {how}, pinned in {cache.pins}")
    return Fetched(path, best.sha256, best.url, pin, inspection)


def import_file(
    inspected: Inspection,
    entry: ReleasedCheckpoint,
    cache: Cache,
    *,
    repin: bool = False,
    say: Say = _silent,
) -> Fetched:
    """Take a file that was fetched by hand (browser, Baidu),
    and inspected, under the same checks, but for the published size.

    Raises as `download` does, and DataError where the file cannot be read.
    """
    source = inspected.path
    try:
        with hold(cache.lock(entry.file), say):
            part = cache.part(entry.file, "import")
            # a copy: the user's file stays where it is, and may change while it is looked at
            shutil.copyfile(source, part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            copied = replace(inspected, path=part)
            candidate = _Candidate(copied, f"import:{source.resolve()}", "import")
            pin = PinFile(cache.pins).get(entry.name)
            _guarded(entry, candidate, None if repin else pin, cache)
            return _commit(entry, cache, [candidate], say)
    except OSError as error:
        raise DataError(
            f"{source}: cannot be copied into the cache {cache.folder} ({error.strerror})"
        ) from error


def _guarded(
    entry: ReleasedCheckpoint, candidate: _Candidate, pin: Pin | None, cache: Cache
) -> None:
    try:
        # the inspection was of the user's file, so the copy must be the same bytes
        if sha256_of(candidate.part) != candidate.sha256:
            raise IntegrityError(f"{candidate.url}: was changed while it was copied; refused")
        _check_digest(
            entry,
            candidate.sha256,
            pin,
            candidate.url,
            _kept(entry, cache).replace("download", "import FILE --name"),
        )
    except Exception:
        _discard(candidate.part)
        raise


def identify(
    inspected: Inspection, registry: dict[str, ReleasedCheckpoint]
) -> ReleasedCheckpoint | None:
    """Which released checkpoint a file is, by the names and shapes of its tensors;
    None where it is none of them.
    """
    # of torch's tensors in the file, without reading them: names, types and shapes are enough
    tensors = scan.state_dict_of(inspected)
    layout = layout_digest((key, spec.dtype, spec.shape) for key, spec in tensors.items())
    return next((entry for entry in registry.values() if entry.layout_sha256 == layout), None)
