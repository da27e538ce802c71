"""What each key of a recipe means, in a sentence: for `dgcctl recipes keys` and docs/recipes.md.
Ranges and defaults are in dgc.recipe.schema. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from dgc.recipe.messages import allowed_values
from dgc.recipe.schema import Sections

MEANINGS: dict[str, str] = {
    "name": "name of the recipe; runs are called after it",
    "title": "one line for lists and reports",
    "source": "whose recipe it is: the paper's or ours",
    "tags": "words that runs are found by (`tag:study`)",
    "seed": "of all random numbers: first weights, order of the images, augmentation",
    "origin": "where a value comes from: dotted key to a text",
    # model
    "model.name": "the network",
    "model.form": (
        "dynamic group convolutions, plain ones, or static groups of the same number of MACs"
    ),
    "model.stem": "the first layers: for small images, or for those of ImageNet",
    "model.num_classes": "answers of the network; must be those of the images",
    "model.heads": "groups of a dynamic convolution, each with gates of its own",
    "model.squeeze_rate": (
        "hidden width of the gates: input channels divided by it (by half of it below 80)"
    ),
    "model.gate_factor": (
        "share of input channels that a head keeps, 1 - pruning rate (foreign networks: 0.5)"
    ),
    "model.stages": "layers of each dense block",
    "model.growth": "channels that each layer of a dense block adds",
    "model.bottleneck": "width of a dense block's 1x1 layers, in growths",
    "model.group_3x3": "static groups of the 3x3 convolutions",
    "model.gate_factors": (
        "layer to its own gate_factor, of the paper's networks (others: model.convert.layers)"
    ),
    "model.args": "further arguments of a foreign network's builder",
    "model.init": "a file of weights to start from; `train --init RUN` names it",
    "model.init_sha256": "the digest that this file must have",
    "model.reset": "weights of that file that may be missing or have another shape",
    "model.convert.include": "names of layers that may become dynamic, * for all",
    "model.convert.exclude": "names of layers that stay as they are",
    "model.convert.squeeze_rate": "as model.squeeze_rate, in a converted network",
    "model.convert.layers": "layer to its own heads, gate_factor, squeeze_rate",
    # data
    "data.name": "the data set",
    "data.args": "arguments of a data set of your own",
    "data.dir": "its folder; null: $DGCCTL_DATA_DIR/NAME, or ./data/NAME",
    "data.augment": (
        "what is drawn at random: nothing, a padded crop and a flip, or a resized crop and a flip"
    ),
    "data.image_size": "side of the images that the network sees, in pixels",
    "data.crop_padding": "pixels of zeros around an image before it is cropped",
    "data.rand_augment": "operations of RandAugment on each training image",
    "data.rand_augment_magnitude": "their magnitude, as torchvision counts it",
    "data.random_erasing": "probability that a box of a training image is erased",
    "data.resize": "shorter side before the centre crop of an evaluation; null: image_size",
    "data.mean": "subtracted from each channel of pixels in [0, 1]",
    "data.std": "divides each channel after that",
    "data.workers": "processes that read images; any number gives the same images",
    "data.limit_train": "use so many training images, spread over the set",
    "data.limit_val": "use so many validation images, spread over the set",
    "data.download": "whether a data set that is not there may be downloaded",
    "data.quarantine": "a file that lists images to leave out",
    # optim
    "optim.name": "the update rule, PyTorch's own",
    "optim.lr": "the learning rate that the schedule starts from",
    "optim.momentum": "of sgd and rmsprop",
    "optim.nesterov": "of sgd",
    "optim.betas": "of adamw",
    "optim.alpha": "of rmsprop: how slowly its average of squares forgets",
    "optim.eps": "of adamw and rmsprop",
    "optim.weight_decay": "of all parameters that have none of their own",
    "optim.gate_weight_decay": "of the gates; null: weight_decay",
    "optim.norm_weight_decay": "of normalisation layers; null: weight_decay",
    "optim.bias_weight_decay": "of other biases; null: weight_decay",
    "optim.clip_grad_norm": "the largest norm of the whole gradient; null: any",
    "optim.label_smoothing": "share of a label that is spread over all classes, in training",
    "optim.warmup_epochs": "the learning rate rises in equal steps for so long",
    "optim.warmup_lr": "where it rises from",
    "optim.schedule": "how it falls: along half a cosine to 0, or in steps",
    "optim.milestones": "finished epochs after which multistep multiplies by gamma",
    "optim.gamma": "of multistep",
    "optim.gate_l1": "weight of the gates' L1 in the loss",
    # train
    "train.epochs": "length; pruning and learning rate follow it",
    "train.batch_size": "images of one update, over all processes",
    "train.accumulate": "parts that each process computes its share in, one after another",
    "train.max_steps": "ends the training early; the schedules stay those of all epochs",
    "train.mixup": "alpha of mixup, 0 is off",
    "train.cutmix": "alpha of CutMix, 0 is off; with both, each batch takes one",
    "train.ema_decay": "keep averaged weights (EMA) too, evaluated beside the others; null: none",
    "train.teacher": (
        "a file of weights that the network learns from too; `train --teacher RUN` names it"
    ),
    "train.teacher_sha256": "the digest that this file must have",
    "train.teacher_temperature": "softens the answers of both",
    "train.teacher_weight": "share of the teacher's word in the loss",
    "train.amp": "mixed precision; float32 on a CPU where that is faster, and recorded so",
    "train.memory_format": "order of the tensors in memory; auto: what was measured to be faster",
    "train.backend": "what dynamic layers compute with; auto: kernels where they are faster",
    "train.tf32": "whether a GPU may round the inputs of float32 products to ten bits",
    "train.compile": (
        "train through torch.compile; reduce-overhead: each step is one CUDA graph, on one GPU"
    ),
    "train.sync_batchnorm": "statistics of BatchNorm over all GPUs",
    "train.dtype": "of weights and images",
    "train.deterministic": "only operations that give the same bits each time",
    "train.threads": "CPU threads; null: as PyTorch chooses",
    "train.log_every": "steps between two looks at the device",
    "train.device": "where; auto: a GPU where there is one",
    # eval
    "eval.batch_size": "images that are loaded at once; changes no figure",
    "eval.every_epochs": "evaluate after so many epochs, and at the end",
    # checkpoint
    "checkpoint.every_seconds": "save at least so often",
    "checkpoint.every_steps": "and after so many steps; null: by time alone",
    "checkpoint.keep_last": "how many of the newest stay",
    "checkpoint.keep_best": "whether the one of least top-1 error stays too",
    "expect": (
        "what the run should reach: metric, value, tolerance, source; the verdict is made of it"
    ),
}


class Key(NamedTuple):
    """A key of a recipe. `default` is as a recipe would say it; None: it must be given."""

    name: str
    allowed: str
    default: str | None
    meaning: str


def keys(schema: type[BaseModel] = Sections, prefix: str = "") -> Iterator[Key]:
    """All keys, in the order of a recipe."""
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
            continue
        default = (
            None if field.is_required() else _told(field.get_default(call_default_factory=True))
        )
        key = f"{prefix}{name}"
        yield Key(key, allowed_values(field), default, MEANINGS[key])


def _told(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_told, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return f'"{value}"' if value == "*" else str(value)
