"""The same training with Lightning: the schedule is stepped in a hook, and its state travels in
Lightning's checkpoints.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from common import BATCH, arguments, batches, dataset, digest, network
from lightning.pytorch.callbacks import ModelCheckpoint

import dgc


class Classifier(lightning.LightningModule):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.model, self.steps = network(), steps
        self.pruning = dgc.PruningSchedule(self.model, steps)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.model(images), labels) + self.pruning.penalty()
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.pruning.step()

    def on_train_epoch_start(self) -> None:
        print(f"epoch {self.current_epoch} begins", flush=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["pruning"] = self.pruning.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.pruning.load_state_dict(checkpoint["pruning"])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


given = arguments()
data = dataset(given.images)
classifier = Classifier(given.epochs * (len(data) // BATCH))
trainer = lightning.Trainer(
    accelerator="cpu",
    max_epochs=given.epochs,
    default_root_dir=given.folder,
    callbacks=[ModelCheckpoint(dirpath=given.folder, filename="{epoch}", save_top_k=-1)],
    logger=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
saved = sorted(given.folder.glob("epoch=*.ckpt"))
trainer.fit(classifier, batches(data), ckpt_path=saved[-1] if saved else None, weights_only=True)
print(f"{classifier.pruning.inactive} channels switched off")
print("digest", digest(classifier.model))
