"""The streams of a run, live or from a store. The code that uses them is the same for both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evl.backbones import FrozenBackbone
from evl.config import DataConfig, RunConfig
from evl.config import replace as replace_settings
from evl.data.dataset import Files
from evl.data.splits import make_files, num_workers
from evl.errors import StoreError
from evl.evaluation.evaluate import Evaluation, evaluate_views, labels_of
from evl.evaluation.stored import refuse_differences
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.runtime.precision import resolve_precision
from evl.runtime.progress import Report, counting
from evl.store.store import FeatureStore
from evl.store.unpacker import open_unpacker
from evl.streams import Stream, Views
from evl.streams.live import training_clips, video_views
from evl.streams.stored import stored_training_clips, stored_views
from evl.types import Preprocessing, Sample
from evl.video.decode.torchcodec import require as require_decoder


class LiveStreams:
    """Streams that decode videos and compute their features as they are needed."""

    features = None  # of a store, its description

    def __init__(
        self,
        config: RunConfig,
        class_names: Sequence[str],
        samples: dict[str, tuple[Sample, ...]],
        backbone: FrozenBackbone,
        preprocessing: Preprocessing,
    ):
        require_decoder(config.data.decoder)
        self.config, self.class_names, self.samples = config, tuple(class_names), samples
        self.backbone, self.preprocessing = backbone, preprocessing
        self._files: dict[str, Files] = {}  # made once, because making them checks every file

    def training(self) -> Stream:
        """The training clips; keys are (epoch, index)."""
        samples, names = self.samples["train"], self.class_names
        labels = labels_of(samples, names)
        return training_clips(self.backbone, self.config, samples, labels, names, self.preprocessing)

    def views(self, split: str, *, quick: bool = False) -> Stream:
        """The views of a split's videos; keys are indices. ``quick``: as few views as possible."""
        config, samples = self.config, self.samples[split]
        if split not in self._files:
            self._files[split] = make_files(samples, config)
        device = next(self.backbone.parameters()).device
        counts = (1, 1) if quick else (config.evaluation.num_clips, config.evaluation.num_crops)
        views = Views(*counts, resolve_precision(config.training.precision, device))
        labels = labels_of(samples, self.class_names)
        return video_views(
            self.backbone, self._files[split], labels, config.clip, self.preprocessing, views,
            num_workers=num_workers(config),
        )  # fmt: skip


class StoredStreams:
    """Streams from a store. ``taps``: the blocks that are read. ``needs_maps``: whether a model reads neighbor maps."""

    def __init__(self, config: RunConfig, store: FeatureStore, taps: Sequence[int], world: World, *, needs_maps: bool):
        self.config, self.store, self.world = config, store, world
        self.samples = {name: split.samples for name, split in store.splits.items()}
        self.features = store.description
        self.unpacker = open_unpacker(store, tuple(taps), needs_maps=needs_maps)

    def training(self) -> Stream:
        return stored_training_clips(self.store, self.unpacker, self.config, self.world.device)

    def views(self, split: str, *, quick: bool = False) -> Stream:
        """All stored views. ``quick`` has no effect, because reading views takes little time."""
        device, labels = self.world.device, self.store.splits[split].labels
        precision = resolve_precision(self.config.training.precision, device)
        clip = self.config.clip
        return stored_views(self.store, split, self.unpacker, clip, labels, device=device, precision=precision)


RunStreams = LiveStreams | StoredStreams


def judge(
    models: Sequence[Classifier],
    source: RunStreams,
    world: World,
    progress: Report,
    *,
    split: str = "val",
    phase: str = "evaluating",
    quick: bool = False,
    batch_size: int,
) -> list[Evaluation]:
    """Evaluates all models on one split of ``source``. Each video is read once for all of them."""
    stream = source.views(split, quick=quick)
    total = len(range(world.rank, len(stream.samples), world.size))
    trained_on, count = source.samples["train"], counting(progress, phase, total)
    return evaluate_views(models, stream, trained_on=trained_on, batch_size=batch_size, world=world, progress=count)


def open_store(config: RunConfig) -> tuple[RunConfig, FeatureStore]:
    """Opens the store at ``config.data.features`` -> (config with its absolute path and its videos, the store).

    Raises StoreError if there is none, if it has no training clips, or if the run needs other features; the message
    lists all differences.
    """
    path = Path(config.data.features).absolute()
    store = FeatureStore(path)
    refuse_differences(store, config)
    if "train" not in store.splits:
        raise StoreError(f"{path} has no training clips, only {', '.join(store.splits)}")
    config = replace_settings(config, data={"features": str(path)})
    return with_videos_of(store.description.config.data, config), store


def with_videos_of(data: DataConfig, config: RunConfig) -> RunConfig:
    """``config`` with the videos of ``data``: a store decides these, but not how many of them may be damaged."""
    return replace_settings(config, data={name: getattr(data, name) for name in _VIDEOS})


# the settings that decide which videos there are
_VIDEOS = ("path", "layout", "split_number", "val_path", "root", "class_names", "val_fraction", "group_by",
           "background", "background_margin")  # fmt: skip


def samples_of(store: FeatureStore) -> tuple[tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    """(class names, training samples, validation samples). The test split is not used."""
    splits = store.splits
    return store.class_names, splits["train"].samples, splits["val"].samples if "val" in splits else ()
