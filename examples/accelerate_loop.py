"""The same training with Hugging Face Accelerate, which saves whatever has a state_dict."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from common import BATCH, arguments, batches, dataset, digest, network

import dgc

given = arguments()
project = ProjectConfiguration(project_dir=given.folder, automatic_checkpoint_naming=True)
accelerator = Accelerator(cpu=True, project_config=project)
data, model = dataset(given.images), network()
steps = given.epochs * (len(data) // BATCH)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
pruning = dgc.PruningSchedule(model, steps)
model, optimizer, rates = accelerator.prepare(model, optimizer, rates)
accelerator.register_for_checkpointing(pruning)

first = len(list(given.folder.glob("checkpoints/checkpoint_*")))
if first:
    accelerator.load_state()
    project.iteration = first

for epoch in range(first, given.epochs):
    print(f"epoch {epoch} begins", flush=True)
    for images, labels in accelerator.prepare(batches(data, epoch)):
        loss = F.cross_entropy(model(images), labels) + pruning.penalty()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        rates.step()
        pruning.step()
    accelerator.save_state()

print(f"loss {loss.item():.4f}, {pruning.inactive} channels switched off")
print("digest", digest(accelerator.unwrap_model(model)))
