"""A training loop in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from common import BATCH, arguments, batches, dataset, digest, network

import dgc

given = arguments()
data, model = dataset(given.images), network()
steps = given.epochs * (len(data) // BATCH)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
pruning = dgc.PruningSchedule(model, steps)

state_file, first = given.folder / "state.pt", 0
parts = {"model": model, "optimizer": optimizer, "rates": rates, "pruning": pruning}
if state_file.exists():
    saved = torch.load(state_file, weights_only=True)
    first = saved.pop("epoch")
    for name, part in parts.items():
        part.load_state_dict(saved[name])

for epoch in range(first, given.epochs):
    print(f"epoch {epoch} begins", flush=True)
    for images, labels in batches(data, epoch):
        loss = F.cross_entropy(model(images), labels) + pruning.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        pruning.step()
    given.folder.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "epoch": epoch + 1}, state_file.with_suffix(".new"))
    state_file.with_suffix(".new").replace(state_file)  # whole, or not at all

fast = dgc.compile_for_inference(model.eval())
print(
    f"loss {loss.item():.4f}, {pruning.inactive} channels switched off, {tuple(fast(images).shape)}"
)
print("digest", digest(model))
