"""A training loop in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from common import BATCH, arguments, batches, dataset, digest, network, resume, save

import dgc

given = arguments()
data, model = dataset(given.images), network()
steps = given.epochs * (len(data) // BATCH)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
pruning = dgc.PruningSchedule(model, steps)

state_file = given.folder / "state.pt"
parts = {"model": model, "optimizer": optimizer, "rates": rates, "pruning": pruning}
first = resume(state_file, parts)

for epoch in range(first, given.epochs):
    print(f"epoch {epoch} begins", flush=True)
    for images, labels in batches(data, epoch):
        loss = F.cross_entropy(model(images), labels) + pruning.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        pruning.step()
    save(state_file, parts, epoch + 1)

fast = dgc.compile_for_inference(model.eval())
print(
    f"loss {loss.item():.4f}, {pruning.inactive} channels switched off, {tuple(fast(images).shape)}"
)
print("digest", digest(model))
