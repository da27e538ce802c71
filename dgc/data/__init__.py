"""Images: the embedded Fashion-MNIST, CIFAR, ImageNet, any image folder; and the loaders.

images = open_images(name="fashion_mnist", augment="crop_flip")
loader = train_loader(images.train, seed=0, batch_size=64, mean=(0.286,) * 3, std=(0.353,) * 3)
for batch in loader.epoch(0, start_batch=0):
    ...  # batch.images (B, 3, S, S), batch.labels (B,), batch.indices (B,)
"""

from __future__ import annotations

from dgc.data.classes import class_names
from dgc.data.factories import eval_loader, train_loader
from dgc.data.image_sets import ImageSet
from dgc.data.loader import Batch, Loader
from dgc.data.sets import Images, data_dir, open_images

__all__ = [
    "Batch",
    "ImageSet",
    "Images",
    "Loader",
    "class_names",
    "data_dir",
    "eval_loader",
    "open_images",
    "train_loader",
]
