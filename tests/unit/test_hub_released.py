"""The whole way of a released file: download from a host, verify, convert, run; against the slow
oracle.

Full-size files for all four networks, both containers, with and without optimizer (the full form),
one of them always.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import dgc
from dgc.errors import UsageError
from dgc.hub import load_pretrained
from dgc.hub.cache import Cache
from dgc.hub.fetch import FetchOptions, download, identify
from dgc.hub.hosts import Bases
from dgc.hub.registry import find_entry, load_registry
from dgc.jobs.checkpoints import verify
from dgc.models import load_released
from tests import released
from tests.faults import hosts as play

NAMES = list(load_registry())


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FORMS = [
    (name, zipped, optimizer)
    for name in NAMES
    for zipped in (False, True)
    for optimizer in (False, True)
]
ALWAYS = ("cifar10_dydensenet86_h4", False, True)


def cases() -> Iterator[object]:
    for form in FORMS:
        name, zipped, optimizer = form
        label = f"{name}-{'zip' if zipped else 'legacy'}-{'optimizer' if optimizer else 'plain'}"
        yield pytest.param(*form, id=label, marks=[] if form == ALWAYS else [pytest.mark.slow])


@pytest.mark.parametrize(("name", "zipped", "optimizer"), cases())
def test_full_size_file_from_the_host_to_the_logits(
    name: str, zipped: bool, optimizer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = find_entry(name)
    model = released.random_network(name, entry.preprocessing.image_size)
    content = released.released_content(model, optimizer=optimizer, best_as_tensor=zipped)
    file = released.write(tmp_path / "theirs.tar", content, zipped=zipped)
    size = file.stat().st_size
    if not optimizer:
        assert entry.size_range[0] <= size <= entry.size_range[1]  # as published
    monkeypatch.setenv(
        "DGCCTL_REGISTRY", str(released.registry_for(tmp_path / "registry.json", name, size))
    )
    said: list[str] = []
    with play.running() as hosts:
        hosts.drive, hosts.onedrive = (
            [play.cut(file.read_bytes(), 0.4), play.file(file.read_bytes())],
            [play.status(404)],
        )
        options = FetchOptions(bases=Bases(hosts.url, hosts.url), say=said.append, offline=False)
        fetched = download(find_entry(name), Cache(tmp_path / "cache"), options)
        assert fetched.path.read_bytes() == file.read_bytes()
        assert [seen.range is None for seen in hosts.seen] == [True, False]
    cache = Cache(tmp_path / "cache")
    assert identify(fetched.inspect(), load_registry()).name == name  # type: ignore[union-attr]
    checks = verify(find_entry(name), cache, FetchOptions(offline=True, say=said.append))
    assert [check["name"] for check in checks if not check["passed"]] == []
    assert len(checks) == 6
    assert any(
        f"{entry.tensors} keys" in line and ("optimizer (" in line) == optimizer for line in said
    )
    _same_logits(name, file, cache, model)


def _same_logits(name: str, file: Path, cache: Cache, model: torch.nn.Module) -> None:
    x = released.image_batch(name)
    with torch.no_grad():
        wanted = released.oracle(load_released(file, name))(x)
        assert torch.equal(released.oracle(model)(x), wanted)
        found = load_pretrained(name, cache, FetchOptions(offline=True)).model(x)
    assert wanted.std() > 0.05
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_pretrained_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dgc.create_model(name, pretrained=True) finds the cache, converts once, and takes no
    overrides.
    """
    name = "cifar10_dydensenet86_h4"
    model = released.random_network(name, 32)
    cache = Cache(tmp_path)
    cache.folder.mkdir()
    released.write(cache.file(f"{name}.tar"), released.released_content(model), zipped=False)
    monkeypatch.setenv("DGCCTL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DGCCTL_OFFLINE", "1")
    # of a conversion that was killed
    leftover = cache.folder / f".tmp-999999999-{name}.safetensors"
    leftover.write_bytes(b"half")
    first = dgc.create_model(name, pretrained=True)
    assert not leftover.exists()
    stamp = cache.converted(name).stat().st_mtime_ns
    second = dgc.create_model(name, pretrained=True)
    assert cache.converted(name).stat().st_mtime_ns == stamp
    assert not second.training
    x = released.image_batch(name)
    with torch.no_grad():
        assert torch.equal(first(x), second(x))
    with pytest.raises(UsageError, match="takes no heads"):
        dgc.create_model(name, pretrained=True, heads=2)
    assert dgc.create_model(name, heads=2).training
