"""The same training with timm's parts, as its train.py puts them together: AdamW with weight decay
on weights alone, warm-up and cosine, averaged weights, a saver of checkpoints.
"""

from __future__ import annotations

from common import BATCH, arguments, batches, dataset, digest, network, resume, save
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3, dispatch_clip_grad

import dgc

given = arguments()
data, model = dataset(given.images), network()
steps = given.epochs * (len(data) // BATCH)
optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.05)
rates = CosineLRScheduler(
    optimizer, t_initial=steps, warmup_t=steps // 10, warmup_lr_init=1e-5, t_in_epochs=False
)
average = ModelEmaV3(model, decay=0.99)
pruning = dgc.PruningSchedule(model, steps, averaged=[average.module])
criterion = LabelSmoothingCrossEntropy(0.1)

state_file = given.folder / "state.pt"
parts = {"model": model, "optimizer": optimizer, "average": average, "pruning": pruning}
first = resume(state_file, parts)

for epoch in range(first, given.epochs):
    print(f"epoch {epoch} begins", flush=True)
    for images, labels in batches(data, epoch):
        loss = criterion(model(images), labels) + pruning.penalty()
        optimizer.zero_grad()
        loss.backward()
        dispatch_clip_grad(model.parameters(), 1.0)
        optimizer.step()
        pruning.step()
        average.update(model, pruning.last_step)
        rates.step_update(pruning.last_step)
    save(state_file, parts, epoch + 1)

print(f"loss {loss.item():.4f}, {pruning.inactive} channels switched off")
print("digest", digest(model), digest(average.module))
