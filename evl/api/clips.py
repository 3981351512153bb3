"""A model and its clips, for other training loops."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from evl.api.judging import choose_split
from evl.api.settings import config_for, sections_of
from evl.backbones import FrozenBackbone, create_backbone
from evl.config import BackboneConfig, RunConfig
from evl.data.dataset import EvaluationViews, TrainingClips
from evl.data.manifests import Manifest
from evl.data.manifests.labels import sort_labels
from evl.data.manifests.manifest import labeled_videos_at
from evl.data.splits import find_splits, make_files
from evl.errors import ConfigError, DataError, VideoError
from evl.evaluation.evaluate import labels_of
from evl.saving import VideoClassifier, build_classifier, load
from evl.saving.folder import is_hub_id
from evl.types import Sample
from evl.video.augment import TrainingTransform
from evl.video.transforms import normalize, preprocessing_of


def create_model(
    backbone: str | BackboneConfig | Mapping[str, Any] | None,
    class_names: Iterable[str],
    *,
    config: RunConfig | str | os.PathLike | None = None,
    recipe: str | None = None,
    settings: Iterable[str] = (),
    **fields: Any,
) -> VideoClassifier:
    """An untrained classifier, on the CPU: frozen encoder, decoder and head, for a training loop of your own.

        model = evl.create_model("evl_clip_tiny", evl.read_manifest("videos/").class_names, num_frames=8)
        optimizer = torch.optim.AdamW(model.trainable_parameters())
        loss = torch.nn.functional.cross_entropy(model(clips), labels)      # clips of evl.ClipDataset("videos/", model)
        model.save_pretrained("runs/mine")                                  # evl.load reads it

    ``fields``: settings of the sections backbone, model, clip and evaluation by name, as for ``evl.train``:
    ``num_queries=4`` or ``model={"decoder": "attentive"}``. Initial values come from torch's global random generator.
    The encoder stays in evaluation mode and without gradients, also after ``model.train()``. Raises ConfigError or
    BackboneError.
    """
    if others := sections_of(fields).keys() - {"backbone", "model", "clip", "evaluation"}:
        raise ConfigError(f"a model has no settings of {' and '.join(sorted(others))}: leave them out")
    if isinstance(class_names, str):
        raise ConfigError(f"class_names {class_names!r:.60}: expected a list of names")
    chosen = config_for(backbone=backbone, recipe=recipe, config=config, settings=settings, **fields)
    return build_classifier(chosen, tuple(class_names))


class ClipDataset(Dataset):
    """``dataset[i]`` -> (clip, label): float (T,C,H,W), normalized as a model or encoder wants it, and a class number.

        clips = evl.ClipDataset("videos/", "vit_base_patch16_clip_quickgelu_224.openai", split="train", num_frames=8)
        for batch, labels in torch.utils.data.DataLoader(clips, batch_size=8, shuffle=True): ...

    The split ``train`` gives a random, augmented clip of each video; which one follows from seed, epoch and index only
    (``set_epoch``). Other splits give the middle clip, cropped at the center. Both are those of ``evl.train``, as is
    the division of videos without splits. A video that cannot be read raises VideoError when it is asked for.

    Args:
        data: a folder with a folder per class, a data set, a list of videos, or samples. A file in place of a sample
            has the name of its folder as label.
        model: a model, or the folder of a run: its clips, pixels and class names; or an encoder: its name, or one that
            was made.
        split: train, val or test; samples are taken as they are.
        fields: settings by name, as for ``evl.train``: ``num_frames=16``, ``rand_augment=None``.

    Attributes: ``samples``, ``labels`` (the class number of each), ``class_names``, ``config``.
    """

    def __init__(
        self,
        data: str | os.PathLike | Iterable[Sample | str | os.PathLike],
        model: VideoClassifier | FrozenBackbone | BackboneConfig | str | os.PathLike,
        split: str = "train",
        *,
        config: RunConfig | None = None,
        settings: Iterable[str] = (),
        **fields: Any,
    ):
        if isinstance(model, str | os.PathLike) and (os.path.isdir(model) or is_hub_id(model)):
            model = load(model)
        backbone, names = None, None
        if isinstance(model, VideoClassifier):
            card, names = model.card, model.class_names
            if config is None:
                config = card.config.without_training()
            preprocessing = card.preprocessing
        elif isinstance(model, FrozenBackbone):
            config = config or RunConfig(backbone=BackboneConfig(model.spec.name))
            preprocessing = model.preprocessing
        else:
            backbone, preprocessing = model, None
        is_list = not isinstance(data, str | os.PathLike | Mapping | Manifest)
        path = None if is_list or isinstance(data, Manifest) else data
        chosen = dict(backbone=backbone, config=config, settings=settings, is_made=preprocessing is not None)
        self.config = config_for(path, **chosen, **fields)
        if self.config.data.features is not None:
            raise ConfigError("a store holds features, not clips: give the videos")
        if preprocessing is None:
            preprocessing = create_backbone(self.config.backbone, 1).preprocessing
        own, preprocessing = preprocessing, preprocessing_of(self.config, preprocessing)
        if isinstance(model, VideoClassifier) and (
            preprocessing != own or self.config.backbone != model.card.config.backbone
        ):
            raise ConfigError(
                "a model's encoder and pixels are its own: leave out settings of backbone, and interpolation, "
                "antialias and pixel_aspect"
            )
        if isinstance(model, FrozenBackbone) and "backbone" in sections_of(fields):
            raise ConfigError("this encoder is made already: leave out settings of backbone, or give its name instead")
        self.preprocessing, self.split, self.epoch = preprocessing, split, 0
        self.samples, self.class_names = self._find(data, split, names)
        self.labels = tuple(labels_of(self.samples, self.class_names))
        files, clip, seed = make_files(self.samples, self.config), self.config.clip, self.config.training.seed
        if split == "train":
            transform = TrainingTransform(self.config.augment, preprocessing, self.class_names)
            jitter = self.config.augment.jitter_seconds
            square = dict(square_pixels=preprocessing.pixel_aspect, jitter_seconds=jitter)
            self._items = TrainingClips(files, self.labels, clip, transform, seed, **square)
        else:
            self._items = EvaluationViews(files, self.labels, clip, preprocessing, num_clips=1, num_crops=1)

    def _find(self, data, split: str, names: Sequence[str] | None) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
        if isinstance(data, Manifest):
            return tuple(data.splits[choose_split(data, split)]), tuple(names or data.class_names)
        if not isinstance(data, str | os.PathLike | Mapping):
            samples = labeled_videos_at(data)
            if not samples:
                raise DataError("data: the list of videos is empty")
            return samples, tuple(names or sort_labels({sample.label for sample in samples}))
        found = find_splits(self.config, test=split == "test")
        if not found.splits.get(split):
            there = ", ".join(name for name, group in found.splits.items() if group)
            raise DataError(f"{self.config.data.path} has no videos of a split {split!r}, only of: {there}")
        return found.splits[split], tuple(names or found.class_names)

    def set_epoch(self, epoch: int) -> None:
        """Other random clips, in the split ``train``. A DataLoader with persistent workers does not see it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        index = int(index) % len(self)
        item = self._items[(self.epoch, index) if self.split == "train" else index]
        if item.problem is not None:
            raise VideoError(self.samples[index].name, item.problem)
        pixels = item.pixels if self.split == "train" else item.pixels[0]
        if pixels.dtype == torch.uint8:  # random erasing, and views, come as floats already
            pixels = normalize(pixels, self.preprocessing.mean, self.preprocessing.std)
        return pixels, item.label  # of a mirrored class, if augment.flip=pairs flipped the clip
