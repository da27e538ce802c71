"""Random numbers without a state: each is a hash of (seed, epoch, sample, number of the draw).

So the order of the samples is f(seed, epoch) and the augmentation of one is f(seed, epoch, sample):
neither depends on the number of workers or ranks, and a run that starts in the middle of an epoch
computes nothing of what came before. The hash is splitmix64 (Steele, Lea, Flood 2014); unlike
NumPy's generators its stream is not bound to a NumPy version.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Uniforms = npt.NDArray[np.float64]
_Words = npt.NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
# purposes: two uses of one (seed, epoch) never share numbers
_ORDER, _AUGMENT, _SUBSET, _MIXING = 1, 2, 3, 4
RAND_AUGMENT, ERASING = 5, 6


def _mix(words: _Words) -> _Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _absorb(state: _Words, words: _Words) -> _Words:
    return _mix((state ^ words) + _STEP)


def _stream(purpose: int, seed: int, epoch: int) -> _Words:
    """The state (1,) that belongs to one purpose in one epoch of one seed."""
    state = np.zeros(1, np.uint64)
    # absorbed one after the other: (1, 2) and (2, 1) are different places
    for number in (purpose, seed, epoch):
        state = _absorb(state, np.array([number], np.uint64))
    return state


def uniforms(
    seed: int, epoch: int, indices_B: Indices, draws: int, purpose: int = _AUGMENT
) -> Uniforms:
    """(B, draws) numbers in [0, 1): row b depends on (seed, epoch, indices_B[b]) alone."""
    samples = _absorb(_stream(purpose, seed, epoch), indices_B.astype(np.uint64))
    words = _absorb(samples[:, None], np.arange(draws, dtype=np.uint64)[None])
    # the upper 53 bits, which is what a double holds: never 1.0, and evenly spread
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order(seed: int, epoch: int, count: int) -> Indices:
    """A permutation of range(count): the order of an epoch."""
    words = _absorb(_stream(_ORDER, seed, epoch), np.arange(count, dtype=np.uint64))
    # sorting hashes shuffles; stable, so that two equal ones have one order everywhere
    return np.argsort(words, kind="stable")


def subset(count: int, limit: int | None) -> Indices:
    """`limit` of range(count), rising, spread over the whole set; the same in every run."""
    if limit is None or limit >= count:
        return np.arange(count)
    # without seed and epoch: the same images in each run that is limited to as many
    words = _absorb(_stream(_SUBSET, 0, 0), np.arange(count, dtype=np.uint64))
    return np.sort(np.argsort(words, kind="stable")[:limit])


def mixing_draws(seed: int, epoch: int, batch: int, draws: int) -> list[float]:
    """`draws` numbers in [0, 1) for a whole batch: they depend on (seed, epoch, batch) alone."""
    place = _absorb(_stream(_MIXING, seed, epoch), np.array([batch], np.uint64))
    words = _absorb(place, np.arange(draws, dtype=np.uint64))
    return [float(word) for word in (words >> np.uint64(11)).astype(np.float64) * 2.0**-53]
