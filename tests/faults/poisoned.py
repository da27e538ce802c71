"""The trainer with a poisoned sample: `python -m tests.faults.poisoned MODE SAMPLE --run-dir RUN
...`.

MODE `loss`: the sample's image is NaN; `grads`: forward is sound, and the gradient that comes back
from it is NaN; `evaluation`: training is sound, and in evaluation the network answers NaN on one
image; `first-evaluation`: only after the first epoch.
"""

import sys

import torch

import dgc.train.main as entry
from dgc.train.__main__ import main

MARK = 1e4


class _BadBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, marked):
        ctx.save_for_backward(marked)
        return logits.clone()

    @staticmethod
    def backward(ctx, grad):
        (marked,) = ctx.saved_tensors
        return torch.where(marked[:, None], torch.nan, grad), None


def _one_nan(module, _, logits):
    if not module.training and len(logits) > 2:  # one image is a count of MACs
        logits = logits.clone()
        logits[2] = torch.nan
    return logits


def poison(session, mode: str, sample: int) -> None:
    epoch = session.train.epoch
    marked_now = []

    def poisoned(*arguments):
        for images, labels, indices in epoch(*arguments):
            marked_now[:] = [indices == sample]
            if mode == "loss":
                images[marked_now[0]] = torch.nan
            yield images, labels, indices

    if mode.endswith("evaluation"):
        session.module.register_forward_hook(
            lambda *call: (
                call[-1] if mode != "evaluation" and session.position.epoch else _one_nan(*call)
            )
        )
        return
    session.train.epoch = poisoned
    if mode == "grads":
        session.module.register_forward_hook(
            lambda module, _, logits: (
                _BadBackward.apply(logits, marked_now[0]) if module.training else logits
            )
        )


if __name__ == "__main__":
    mode, sample = sys.argv[1], int(sys.argv[2])
    prepare = entry.prepare

    def prepare_poisoned(*arguments):
        session = prepare(*arguments)
        poison(session, mode, sample)
        return session

    entry.prepare = prepare_poisoned
    sys.exit(main(sys.argv[3:]))
