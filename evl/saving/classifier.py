"""The one class of models: built, loaded, saved, pushed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin

from evl._version import __version__
from evl.backbones import FrozenBackbone
from evl.backbones.base import hash_weights
from evl.config import ClipConfig, RunConfig
from evl.data.manifests.manifest import AnyPath, Videos, is_one_video, videos_at
from evl.errors import CheckpointError, ConfigError, EVLError, SaveError, VideoError, one_line, plural
from evl.inference.embedding import Pool, embed
from evl.inference.predictor import predict_videos, read_views_of, scores_of_views, views_for
from evl.models import Classifier
from evl.runtime.files import expand_home, is_used
from evl.runtime.out_folder import build_folder
from evl.runtime.progress import Report, counting, showing
from evl.saving.build import build
from evl.saving.folder import (
    CARD,
    MADE,
    embedding_width,
    find_model,
    open_backbone,
    read_card,
    read_tensors,
    refuse_other_shapes,
    weights_file,
)
from evl.saving.page import readme
from evl.saving.saved import TYPES, changed, differences, head_of, put_trained, save_model, scored_card
from evl.types import EncoderFacts, Prediction, Sample

if TYPE_CHECKING:
    from huggingface_hub import ModelCard as Readme

log = logging.getLogger("evl")


class VideoClassifier(
    Classifier,
    ModelHubMixin,
    library_name="evl",
    pipeline_tag="video-classification",
    tags=["video-classification", "action-recognition", "evl"],
):
    """``evl.models.Classifier`` that reads files, can be saved, pushed to the Hugging Face Hub, and loaded again.

        model.predict("clip.mp4").class_name
        model.save_pretrained("folder", with_backbone=True)
        model.push_to_hub("you/your-model")
        model = evl.VideoClassifier.from_pretrained("you/your-model")      # the same as evl.load

    A folder holds ``model.safetensors``, ``model.json`` and a ``README.md`` made from them.
    ``run``: what training it came to (``evl.training.RunResult``), where ``evl.train`` made it; else None.
    ``folder``: where it was trained, or loaded from; else None.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._hub_mixin_config = None  # model.json says it all
        self._with_backbone: bool | None = None  # while it is being saved
        self._hub_id: str | None = None
        # the scores it was loaded with, and the hash of its trained weights then
        self._scored: tuple[dict | None, str | None] = (None, None)
        self.run: Any = None
        self.folder: Path | None = None

    def predict(self, paths: Videos, *, progress: bool | Report = True, **options) -> Prediction | list[Prediction]:
        """The prediction of a file; for a list, folder or manifest a list with the prediction of each video, in order.

        By the model's own sampling, resizing and views, on its device. ``progress``: as for ``evl.train``, of several.
        ``options``: those of ``evl.inference.predict_videos``, such as ``num_clips``. Raises VideoError for the first
        file that cannot be used; ``evl.predict(model, paths)`` predicts the others and lists those.
        """
        samples = videos_at(paths)
        with showing(len(samples) > 1 and progress) as report:
            count = counting(report, "predicting", len(samples))
            result = predict_videos(self, samples, progress=count, **options)
        _refuse_damaged({samples[index]: reason for index, reason in result.damaged.items()}, "evl.predict")
        return result.predictions[0] if is_one_video(paths) else list(result.predictions)

    def embed(self, paths: Videos, *, pool: Pool = "query", progress: bool | Report = True, **options) -> np.ndarray:
        """The vector (D) of a file, float32; for a list, folder or manifest a vector of each video, (n,D), in order.

        ``pool``: ``query``, what the trained decoder gathered, or ``mean``, the mean of patch tokens. ``progress``: as
        for ``evl.train``, of several. ``options``: those of ``evl.inference.views_for``, such as ``num_clips``. Raises
        VideoError for the first file that cannot be used.
        """
        samples = videos_at(paths)
        with showing(len(samples) > 1 and progress) as report:
            count = counting(report, "embedding", len(samples))
            found = embed(self, views_for(self, samples, **options), pool=pool, progress=count)
        _refuse_damaged({one: found.damaged[one.name] for one in samples if one.name in found.damaged})
        return found.vectors[0] if is_one_video(paths) else found.vectors

    def read_views(
        self, path: AnyPath | Sample, *, num_clips: int | None = None, num_crops: int | None = None
    ) -> torch.Tensor:
        """The normalized views of a file that ``predict`` shows to the model: float (V,T,C,H,W), on the CPU.

        ``model.scores(views)`` are the scores. Raises VideoError for a file that cannot be used.
        """
        return read_views_of(self, path, num_clips=num_clips, num_crops=num_crops)

    def scores(self, views: torch.Tensor) -> torch.Tensor:
        """The scores of one video, (Y) in double: the softmax of the logits, averaged over ``views`` (V,T,C,H,W).

        ``model.scores(model.read_views(path))`` are the scores of ``model.predict(path)``.
        """
        return scores_of_views(self, views)

    def save_pretrained(self, save_directory: str | Path, *, with_backbone: bool | None = None, **options):
        """Writes the model into a folder. ``with_backbone``: also the frozen encoder's weights, so that nothing else
        is needed to load it (mind their licence); None: as it came. ``options``: huggingface_hub's.

        A new folder appears whole, or not at all if the disk refuses (SaveError). In a folder that has files already,
        each file is replaced when the new one is complete, and others stay.
        """
        folder = expand_home(Path(save_directory))
        if options.get("push_to_hub"):
            options = {"repo_id": folder.name} | options
        with ExitStack() as stack:
            stack.enter_context(self._saving(with_backbone, self._hub_id))
            where = folder if is_used(folder) else stack.enter_context(build_folder(folder))
            return super().save_pretrained(where, **options)

    def push_to_hub(self, repo_id: str, *, with_backbone: bool | None = None, **options) -> str:
        """Saves to the hub (``hf auth login`` first). ``options``: huggingface_hub's, such as ``private=True``.

        Raises SaveError where the hub cannot be reached or does not take it.
        """
        if not re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", repo_id):
            raise SaveError(f"{repo_id!r} is no name on the hub; expected owner/name")
        try:
            with self._saving(with_backbone, repo_id):
                return super().push_to_hub(repo_id, **options)  # which calls save_pretrained
        except EVLError:
            raise
        except Exception as error:  # hub, network and disk errors come in a dozen types
            raise SaveError(
                f"could not be pushed to {repo_id}: {one_line(error)} (logged in? hf auth login)"
            ) from error

    @contextmanager
    def _saving(self, with_backbone: bool | None, hub_id: str | None) -> Iterator[None]:
        before = self._with_backbone, self._hub_id
        try:
            self._with_backbone = before[0] if with_backbone is None else with_backbone
            self._hub_id = hub_id
            yield
        finally:
            self._with_backbone, self._hub_id = before

    def _save_pretrained(self, save_directory: Path) -> None:
        paths = "weights" if self._hub_id is None else "none"
        save_model(self, save_directory, with_backbone=self._with_backbone, paths=paths)
        page = save_directory / "README.md"
        if page.is_file() and MADE in page.read_text(encoding="utf-8", errors="replace"):
            page.unlink()  # it will be made anew; one that a person wrote stays

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        **options,
    ) -> VideoClassifier:
        """``evl.load`` with huggingface_hub's options; ``options`` are those of ``evl.load``.

        Not the mixin's own, which asks for a ``config.json`` that these models do not have, and so fails offline.
        """
        hub = dict(force_download=force_download, local_files_only=local_files_only, token=token, cache_dir=cache_dir)
        return load(find_model(pretrained_model_name_or_path, revision, **hub), **options)

    def generate_model_card(self, *args, **kwargs) -> Readme:
        """The ``README.md``: classes, protocol, scores, data, and the backbone with its licence."""
        inside = self.card.with_backbone if self._with_backbone is None else self._with_backbone
        card = replace(scored_card(self), with_backbone=inside, evl_version=__version__)
        return readme(card, kwargs.get("repo_id", self._hub_id))


def _refuse_damaged(damaged: dict[Sample, str], tolerant: str | None = None) -> None:
    """VideoError for the first, with the number of the others, and with the name of a function that leaves them out."""
    if not damaged:
        return
    sample, reason = next(iter(damaged.items()))
    if len(damaged) > 1:
        reason += f" (and {plural(len(damaged) - 1, 'other video')} cannot be used)"
    if tolerant is not None and len(damaged) > 1:
        reason += f"; {tolerant}(model, paths) predicts the rest and lists these"
    raise VideoError(sample.name, reason)


def build_classifier(
    config: RunConfig,
    class_names: Sequence[str],
    *,
    backbone: FrozenBackbone | EncoderFacts | None = None,
    embedding_width: int | None = None,
    seed: int | None = None,
) -> VideoClassifier:
    """An untrained classifier on its frozen backbone, on the CPU, with ``card`` filled in.

    ``backbone``: the one that ``config`` names, if it is there already, or what is known of it.
    ``embedding_width``: a saved model's, whose zero-shot part will be loaded; without it a text tower makes it.
    ``seed`` draws the initial values (by torch's global generator), which then do not depend on where the backbone
    comes from. Raises BackboneError or ConfigError where parts do not fit.
    """
    options = dict(backbone=backbone, embedding_width=embedding_width, seed=seed)
    return build(VideoClassifier, config, class_names, **options)


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    backbone_weights: str | Path | None = None,
    num_frames: int | None = None,
    stride: int | None = None,
    frames_per_second: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    revision: str | None = None,
    backbone: FrozenBackbone | EncoderFacts | None = None,
) -> VideoClassifier:
    """A saved classifier, in evaluation mode: backbone rebuilt, trained weights put in.

    ``path``: the folder of a run or model, or ``owner/name`` of the Hugging Face Hub (at ``revision``); what was
    fetched once is found offline. ``backbone_weights``: where the backbone's file is now, if it was loaded from one
    and has moved. ``num_frames``, ``image_size`` (a side, or (H, W)): for other clips than it was trained on, with
    temporal positions, relative tables and the backbone's positions interpolated, which is logged. ``stride`` goes with
    them, or ``frames_per_second``; each takes the other's place.

    Raises CheckpointError if there is no such model, it is damaged, or its backbone's weights are not those it was
    trained on.
    """
    path = find_model(path, revision)
    card = read_card(path)
    state = read_tensors(path, card)
    clip = _other_clip(card.config.clip, num_frames=num_frames, stride=stride, frames_per_second=frames_per_second)
    sized = card.config.backbone if image_size is None else changed(card.config.backbone, image_size=image_size)
    config = replace(card.config, backbone=sized, clip=clip)
    if backbone is None:
        backbone, weights = open_backbone(path, card, state, backbone_weights=backbone_weights, image_size=image_size)
    elif backbone.weights_hash != card.backbone_hash:
        here, there = backbone.weights_hash[:12], card.backbone_hash[:12]
        raise CheckpointError(f"{path} was trained on other backbone weights: hash {there}…, not {here}…")
    else:
        weights, card = weights_file(path, card), replace(card, with_backbone=False)
    refuse_other_shapes(card, state, backbone, path)
    if image_size is None and card.preprocessing.image_size != backbone.spec.image_size:
        claimed, taken = card.preprocessing.image_size, backbone.spec.image_size
        raise CheckpointError(f"{path / CARD}: images of {claimed} for a backbone that takes {taken}")
    width = embedding_width(card, state)
    model = build_classifier(config, card.class_names, backbone=backbone, embedding_width=width)
    if card.config.model.decoder != "zero_shot":
        model.head = head_of(state, model.head)
    model.card = replace(
        card,
        config=replace(config, backbone=replace(sized, weights=weights)),
        preprocessing=replace(card.preprocessing, image_size=backbone.spec.image_size),
        origin=card.origin or backbone.origin,
    )
    if notices := differences(card, model.card):
        log.warning("%s is used otherwise than it was trained: %s", path, "; ".join(notices))
        # scores were of the model as it was
        model.card = replace(model.card, scores=None, used_otherwise=(*card.used_otherwise, *notices))
    put_trained(model, state, card, path)
    if model.card.scores:
        model._scored = model.card.scores, card.scored_hash or hash_weights(model.trainable_state())
    model.folder = path
    return model.to(device, TYPES[card.dtype]).eval()


def _other_clip(clip: ClipConfig, **wanted) -> ClipConfig:
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if {"stride", "frames_per_second"} <= set(wanted):
        raise ConfigError("give a stride (by frames) or frames_per_second (by time), not both")
    if "stride" in wanted:  # a model that samples by time then samples by frames
        wanted["frames_per_second"] = None
    return changed(clip, **wanted)
