"""Keys in one burst mean what they mean when they are typed slowly, on every screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tui import bursts, frames
from tests.tui.bursts import Case

QUICK, FULL, PART = 24, 1000, 50


async def differences(runs: Path, seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        case = Case.of(seed)
        slow = await bursts.end_state(runs, case, slow=True)
        burst = await bursts.end_state(runs, case, slow=False)
        found += [
            f"seed {seed} {case}: {key}\n  slow  {slow.get(key)}\n  burst {burst.get(key)}"
            for key in sorted({*slow, *burst})
            if slow.get(key) != burst.get(key)
        ]
    print(f"\n{len(seeds)} sequences, each slowly and in one burst: {len(found)} differences")
    return found


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["/", *"sy"], "filter: sy"),
        (["/", "q"], "filter: q"),
        (["/", *"state=done", "enter"], "filter: state=done"),
        (["m", "/", *"gate_l1", "enter", "enter"], "step.gate_l1"),
    ],
)
async def test_what_follows_a_slash_is_the_search(
    made_runs: Path, keys: list[str], shown: str
) -> None:
    """Each of these did something else: stopped a training, quit, exported, opened the gates."""
    async with frames.opened(
        made_runs, frames.LARGE, open=["aaa001"] if keys[0] == "m" else []
    ) as (
        dash,
        pilot,
    ):
        for key in keys:
            frames.type_key(dash, key)
        await frames.heard(pilot)
        await frames.settled(pilot)
        assert shown in frames.text(dash)
        assert dash.store.view.filter == "".join(keys[1:]).removesuffix("enter") or keys[0] == "m"
        assert getattr(dash.screen, "_alone", shown) in (shown, "")
        assert len(dash.screen_stack) == (3 if keys[0] == "m" else 2)


async def test_a_burst_of_keys_leads_where_slow_typing_leads(made_runs: Path) -> None:
    assert await differences(made_runs, range(QUICK)) == []


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("first", range(0, FULL, PART))
async def test_a_thousand_bursts_lead_where_slow_typing_leads(made_runs: Path, first: int) -> None:
    """In parts, so that each can be run by itself."""
    assert await differences(made_runs, range(first, first + PART)) == []
