"""Images: geometry against torchvision, the stateless random numbers, normalisation, the data sets
themselves.
"""

import hashlib
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from dgc.data import class_names, data_dir, open_images, train_loader, transforms
from dgc.data.describe import content_digest
from dgc.data.folder import raise_problems, scan
from dgc.data.normalise import Normalise
from dgc.data.rng import order, subset, uniforms
from dgc.errors import DataError, UsageError
from tests import cifar10_jpeg, image_folder

# --- the random numbers ---------------------------------------------------------------------------


def test_the_streams_never_change():
    """A resumed run, or one repeated next year, must see the same images: these are frozen."""
    assert order(0, 0, 8).tolist() == GOLDEN_ORDER
    assert uniforms(7, 3, np.array([5]), 2)[0].tolist() == GOLDEN_UNIFORMS
    assert subset(20, 5).tolist() == GOLDEN_SUBSET


GOLDEN_ORDER = [3, 1, 6, 2, 4, 7, 0, 5]
GOLDEN_UNIFORMS = [0.29058567840711924, 0.5043890549748108]
GOLDEN_SUBSET = [1, 2, 4, 12, 19]


def test_order_is_a_permutation_and_differs():
    orders = [order(seed, epoch, 1000) for seed in range(3) for epoch in range(3)]
    for one in orders:
        assert np.array_equal(np.sort(one), np.arange(1000))
    assert len({tuple(one) for one in orders}) == 9


def test_every_place_is_equally_likely():
    counts = np.zeros((6, 6))
    for epoch in range(6000):
        counts[np.arange(6), order(1, epoch, 6)] += 1
    # 36 counts of mean 1000 and deviation 29: six deviations are a fault
    assert np.abs(counts - 1000).max() < 175


def test_uniforms_are_uniform_and_independent():
    draws = uniforms(3, 9, np.arange(20_000), 4)
    assert 0 <= draws.min() < 1e-3
    assert 1 - 1e-3 < draws.max() < 1
    histogram = np.stack([np.histogram(column, 20, (0, 1))[0] for column in draws.T])
    assert np.abs(histogram - 1000).max() < 6 * math.sqrt(950)
    neighbours = np.corrcoef(np.concatenate([draws[:-1], draws[1:]], axis=1).T) - np.eye(8)
    assert np.abs(neighbours).max() < 6 / math.sqrt(20_000)


def test_uniforms_depend_on_seed_epoch_and_sample():
    base = uniforms(0, 0, np.array([0]), 1)[0, 0]
    others = [
        uniforms(1, 0, np.array([0]), 1),
        uniforms(0, 1, np.array([0]), 1),
        uniforms(0, 0, np.array([1]), 1),
    ]
    assert len({base, *(float(other[0, 0]) for other in others)}) == 4


def test_subset_is_spread_over_the_set():
    assert np.array_equal(subset(5, None), np.arange(5))
    assert np.array_equal(subset(5, 9), np.arange(5))
    chosen = subset(10_000, 1_000)
    assert np.array_equal(chosen, np.unique(chosen))
    assert np.abs(np.histogram(chosen, 10, (0, 10_000))[0] - 100).max() < 50


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (32, 32), (40, 31), (257, 256), (30, 90)])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (36, 32), (32, 32)])
def test_evaluation_view_is_torchvisions(size, resize, crop):
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    )
    theirs = v2.Compose(
        [v2.Resize(resize, interpolation=v2.InterpolationMode.BILINEAR), v2.CenterCrop(crop)]
    )(image)
    assert np.array_equal(np.asarray(transforms.fit(image, resize, crop)), np.asarray(theirs))


def test_crop_and_flip_are_what_they_say():
    images = np.random.default_rng(0).integers(1, 256, (6, 8, 8, 3), np.uint8)
    draws = uniforms(0, 0, np.arange(6), 3)
    flips = 0
    for image, result, (top, left, flip) in zip(
        images, transforms.crop_flip(images, draws, 3), draws, strict=True
    ):
        padded = np.pad(image, ((3, 3), (3, 3), (0, 0)))
        y, x = int(top * 7), int(left * 7)
        crop = padded[y : y + 8, x : x + 8]
        assert np.array_equal(result, crop[:, ::-1] if flip < 0.5 else crop)
        flips += flip < 0.5
    assert 0 < flips < 6


def test_crops_reach_every_place_equally():
    image = np.arange(1, 65, dtype=np.uint8).reshape(1, 8, 8, 1)
    draws = uniforms(5, 0, np.arange(4000), 3)
    first = [int(transforms.crop_flip(image, row[None], 4)[0, 4, 4, 0]) for row in draws[:4000:4]]
    # all 9 x 9 places, mirrored or not, put some pixel (or the margin) there
    assert len(set(first)) > 60
    places = np.histogram2d(draws[:, 0], draws[:, 1], bins=9)[0]
    assert np.abs(places - 4000 / 81).max() < 6 * math.sqrt(4000 / 81)


def test_random_boxes_have_torchvisions_area_and_ratio():
    rows = uniforms(0, 0, np.arange(4000), transforms.RESIZED_CROP_FLIP_DRAWS)
    boxes = np.array([transforms.random_box(400, 300, row) for row in rows])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 400
    assert boxes[:, 3].max() <= 300
    areas = widths * heights / 120_000
    assert 0.079 < areas.min() < 0.1
    assert areas.max() > 0.9
    ratios = widths / heights
    assert 0.74 < ratios.min() < 0.77
    assert 1.31 < ratios.max() < 1.35


def test_boxes_are_distributed_like_torchvisions():
    rows = uniforms(0, 1, np.arange(3000), transforms.RESIZED_CROP_FLIP_DRAWS)
    ours = np.array([transforms.random_box(400, 300, row) for row in rows], float)
    ours = np.stack([ours[:, 1], ours[:, 0], ours[:, 3] - ours[:, 1], ours[:, 2] - ours[:, 0]], 1)
    torch.manual_seed(0)
    crop, image = v2.RandomResizedCrop(224), torch.empty(3, 300, 400)
    theirs = [crop.make_params([image]) for _ in range(3000)]
    theirs = np.array(
        [[params[key] for key in ("top", "left", "height", "width")] for params in theirs], float
    )
    for column in range(4):  # Kolmogorov-Smirnov: 0.05 is far beyond chance for 3,000 against 3,000
        grid = np.linspace(0, 400, 801)
        gap = np.abs(
            np.searchsorted(np.sort(ours[:, column]), grid)
            - np.searchsorted(np.sort(theirs[:, column]), grid)
        )
        assert gap.max() / 3000 < 0.05


@pytest.mark.parametrize(
    ("size", "box"), [((10, 100), (0, 43, 10, 56)), ((100, 10), (43, 0, 56, 10))]
)
def test_an_image_too_thin_for_any_box_gives_its_middle(size, box):
    assert transforms.random_box(*size, np.full(23, 0.999)) == box


def test_resized_crop_flip_is_crop_then_resize():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    for row in uniforms(0, 0, np.arange(6), transforms.RESIZED_CROP_FLIP_DRAWS):
        expected = image.crop(transforms.random_box(80, 60, row)).resize(
            (24, 24), Image.Resampling.BILINEAR
        )
        if row[22] < 0.5:
            expected = Image.fromarray(np.asarray(expected)[:, ::-1])
        assert np.array_equal(
            np.asarray(transforms.resized_crop_flip(image, row, 24)), np.asarray(expected)
        )


# --- normalisation --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_the_arithmetic_to_the_last_bit(dtype, channels):
    mean, std = (
        ((0.286,) * 3, (0.353,) * 3) if channels == 1 else ((0.49, 0.48, 0.44), (0.24, 0.26, 0.26))
    )
    x = torch.arange(256, dtype=torch.uint8).repeat(channels * 6).reshape(2, 16, 48, channels)
    y = Normalise(mean, std, dtype, torch.device("cpu"))(x)
    m, s = (torch.tensor(value, dtype=dtype)[:, None, None] for value in (mean, std))
    expected = (x.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).to(dtype) / 255 - m) / s
    assert torch.equal(y, expected)
    assert y.is_contiguous()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_normalise_on_the_gpu_is_that_of_the_cpu():
    x = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    ours = Normalise((0.49, 0.48, 0.44), (0.24, 0.26, 0.26), torch.float32, torch.device("cuda"))(x)
    assert torch.equal(
        ours.cpu(),
        Normalise((0.49, 0.48, 0.44), (0.24, 0.26, 0.26), torch.float32, torch.device("cpu"))(x),
    )


# --- the sets -------------------------------------------------------------------------------------


def test_fashion_mnist_is_the_published_subset():
    images = open_images(name="fashion_mnist", num_classes=10)
    assert (len(images.train), len(images.val)) == (5000, 1000)
    assert np.bincount(images.train.labels).tolist() == [500] * 10
    assert np.bincount(images.val.labels).tolist() == [100] * 10
    pixels = images.train.pixels(0, 0, np.arange(5000))
    assert pixels.shape == (5000, 32, 32, 1)
    inner = pixels[:, 2:30, 2:30] / 255
    assert (inner.mean(), inner.std()) == (
        pytest.approx(0.2860, abs=2e-3),
        pytest.approx(0.3530, abs=2e-3),
    )
    assert pixels.sum() == pixels[:, 2:30, 2:30].sum(dtype=np.int64)


def test_the_loader_gives_the_reference_runs_images():
    """Padded after division, repeated, normalised over all of it: reference trace and embedded set
    agree.
    """
    images = open_images(name="fashion_mnist", augment="none")
    norm = {"mean": (0.286,) * 3, "std": (0.353,) * 3, "dtype": torch.float64}
    batch = next(iter(train_loader(images.train, seed=0, batch_size=5000, **norm)))
    row = int((batch.indices == 11).nonzero()[0, 0])
    raw = images.train.pixels(0, 0, np.array([11]))[0, 2:30, 2:30, 0]
    expected = (np.pad(raw / 255.0, 2) - 0.286) / 0.353
    assert batch.images.shape == (5000, 3, 32, 32)
    for channel in range(3):
        assert np.array_equal(batch.images[row, channel].numpy(), expected)


def test_limits_choose_from_all_classes_and_never_change():
    images = open_images(name="fashion_mnist", limit_train=500, limit_val=100)
    assert (len(images.train), len(images.val)) == (500, 100)
    assert np.bincount(images.train.labels, minlength=10).min() > 25
    assert (
        images.describe()
        == open_images(name="fashion_mnist", limit_train=500, limit_val=100).describe()
    )
    assert (
        images.describe()["train"]["sha256"]
        != open_images(name="fashion_mnist").describe()["train"]["sha256"]
    )


def test_description_follows_the_content(tmp_path):
    folder = image_folder.make(tmp_path / "a", classes=2, train=3, val=1)
    before = open_images(name="image_folder", dir=folder).describe()
    assert before["train"] | {"sha256": ""} == {
        "samples": 6,
        "per_class": [3, 3],
        "sha256": "",
        "digest_of": "content",
    }
    victim = folder / "train" / "class1" / "002.jpg"
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + b"\0")  # the same size
    after = open_images(name="image_folder", dir=folder).describe()
    assert after["train"]["sha256"] != before["train"]["sha256"]
    assert after["val"] == before["val"]
    victim.write_bytes(data)
    assert open_images(name="image_folder", dir=folder).describe() == before


def test_a_large_folder_is_described_by_names_and_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr("dgc.data.describe.MAX_CONTENT_BYTES", 10)
    images = open_images(
        name="image_folder", dir=image_folder.make(tmp_path / "a", classes=2, train=2, val=1)
    )
    kind, quick = content_digest(images.train)
    assert kind == "names and sizes"
    assert content_digest(images.train, full=True) != ("names and sizes", quick)


def test_class_names():
    assert class_names("fashion_mnist")[9] == "Ankle boot"
    assert class_names("cifar10")[6] == "frog"
    assert len(set(class_names("cifar100"))) == 100
    assert list(class_names("cifar100")) == sorted(class_names("cifar100"))
    imagenet = class_names("imagenet")
    assert (len(imagenet), imagenet[0], imagenet[999]) == (1000, "tench", "toilet tissue")
    assert class_names("image_folder") == ()


def test_wrong_names_sizes_and_class_counts():
    with pytest.raises(
        UsageError, match="unknown data set 'mnist': there are fashion_mnist, cifar10, "
    ):
        open_images(name="mnist")
    with pytest.raises(DataError, match="fashion_mnist has 10 classes, but the network has 7"):
        open_images(name="fashion_mnist", num_classes=7)
    with pytest.raises(DataError, match=r"data\.image_size = 28, but its images are 32 wide"):
        open_images(name="fashion_mnist", image_size=28)


def test_where_data_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("DGCCTL_DATA_DIR", raising=False)
    assert str(data_dir("cifar10")) == "data/cifar10"
    monkeypatch.setenv("DGCCTL_DATA_DIR", "/d")
    assert str(data_dir("cifar10")) == "/d/cifar10"
    assert data_dir("cifar10", tmp_path) == tmp_path


# --- real JPEGs -----------------------------------------------------------------------------------


PIPELINES = [("crop_flip", 32, None), ("resized_crop_flip", 224, 256), ("none", 224, 256)]


@pytest.mark.parametrize(("augment", "size", "resize"), PIPELINES)
def test_real_jpegs_through_both_pipelines(augment, size, resize, tmp_path):
    folder = cifar10_jpeg.unpack(tmp_path / "cifar10", train=90, val=20)
    assert through_a_pipeline(folder, augment, size, resize) == class_names("cifar10")


@pytest.mark.parametrize(("augment", "size", "resize"), PIPELINES)
def test_made_jpegs_through_both_pipelines(augment, size, resize, tmp_path):
    """The same where the real ones are not there."""
    folder = image_folder.make(tmp_path / "made", classes=10, train=9, val=2, size=(32, 32))
    through_a_pipeline(folder, augment, size, resize)


def through_a_pipeline(folder, augment, size, resize):
    """Load 90 and 20 images, look at them, and return their classes."""
    images = open_images(
        name="image_folder",
        dir=folder,
        augment=augment,
        image_size=size,
        resize=resize,
        num_classes=10,
    )
    options = {"seed": 0, "batch_size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    batches = list(train_loader(images.train, **options).epoch(0))
    assert [tuple(batch.images.shape) for batch in batches] == [
        (count, 3, size, size) for count in (32, 32, 26)
    ]
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(90))
    assert min(float(batch.images.min()) for batch in batches) >= -2
    first = images.val.pixels(0, 0, np.array([0]))[0]
    theirs = Image.open(images.val.name_of(0)).convert("RGB")
    if resize:
        theirs = v2.Compose([v2.Resize(resize), v2.CenterCrop(size)])(theirs)
    assert (
        hashlib.sha256(first.tobytes()).digest()
        == hashlib.sha256(np.asarray(theirs).tobytes()).digest()
    )
    return images.classes


def test_the_check_of_both_halves_is_named_only_where_there_are_two(tmp_path):
    """`eval --data-dir` takes one folder of classes, which `data verify` would not."""
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "val" / "cats").mkdir(parents=True)
    with pytest.raises(DataError) as one:
        raise_problems([scan(tmp_path, "photos")])
    assert str(one.value).endswith("0 images in this class folder: fill it or remove it")
    with pytest.raises(DataError, match=r"; `dgcctl data verify .*` lists all that is wrong$"):
        raise_problems([scan(tmp_path, "val")])
