"""Models that travel: to a folder, to the Hugging Face Hub, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from evl import __version__, models
from evl.assembly.formats import CARD, MADE, WEIGHTS
from evl.errors import CheckpointError, EVLError, SaveError
from evl.files import expand_home

if TYPE_CHECKING:
    from huggingface_hub import ModelCard as Readme


class VideoClassifier(
    models.VideoClassifier,
    ModelHubMixin,
    library_name="evl",
    pipeline_tag="video-classification",
    tags=["video-classification", "action-recognition", "evl"],
):
    """``evl.models.VideoClassifier`` that can be saved, pushed to the Hugging Face Hub, and loaded from it.

        model.save_pretrained("folder", with_backbone=True)
        model.push_to_hub("you/your-model")
        model = evl.VideoClassifier.from_pretrained("you/your-model")      # the same as evl.load

    A folder holds ``model.safetensors``, ``model.json`` and a ``README.md`` made from them.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._hub_mixin_config = None  # model.json says it all
        self._with_backbone: bool | None = None  # while it is being saved
        self._hub_id: str | None = None
        # the scores it was loaded with, and the hash of its trained weights then
        self._scored: tuple[dict | None, str | None] = (None, None)

    def save_pretrained(self, save_directory: str | Path, *, with_backbone: bool | None = None, **options):
        """Writes the model into a folder. ``with_backbone``: also the frozen encoder's weights, so that nothing else
        is needed to load it (mind their licence); None: as it came. ``options``: huggingface_hub's."""
        with self._saving(with_backbone, self._hub_id):
            return super().save_pretrained(expand_home(Path(save_directory)), **options)

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
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SaveError(f"could not be pushed to {repo_id}: {reason[:300]} (logged in? hf auth login)") from error

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
        from evl.assembly.saved import save_model

        save_model(self, save_directory, with_backbone=self._with_backbone, full_path=self._hub_id is None)
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
        from evl.assembly.saved import load

        path = expand_home(pretrained_model_name_or_path)
        if not Path(path).exists() and is_hub_id(path):
            path = fetch(
                str(path), revision, force_download=force_download, local_files_only=local_files_only, token=token,
                cache_dir=cache_dir,
            )  # fmt: skip
        return load(path, **options)

    def generate_model_card(self, *args, **kwargs) -> Readme:
        """The ``README.md``: classes, protocol, scores, data, and the backbone with its licence."""
        from evl.assembly.readme import readme
        from evl.assembly.saved import scored_card

        inside = self.card.with_backbone if self._with_backbone is None else self._with_backbone
        card = replace(scored_card(self), with_backbone=inside, evl_version=__version__)
        return readme(card, kwargs.get("repo_id", self._hub_id))


def is_hub_id(path: str | Path) -> bool:
    """Whether a path that is not there may name a model on the hub: ``owner/name``, and no folder ``owner`` here."""
    owner = Path(path).parent
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)) is not None and not owner.exists()


def fetch(hub_id: str, revision: str | None = None, **options) -> Path:
    """The folder of a model of the hub, in its cache: fetched if it is not there, also used offline.

    Raises CheckpointError where there is no such model, or no network and no copy.
    """
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[WEIGHTS, CARD], **options))
    except LocalEntryNotFoundError:
        at = f"{hub_id} at {revision}" if revision else hub_id
        raise CheckpointError(
            f"{at} is no folder here, and cannot be fetched from the Hugging Face Hub (no network, or "
            f"HF_HUB_OFFLINE is set). Where there is one: hf download {hub_id} {WEIGHTS} {CARD} --local-dir FOLDER"
        ) from None
    except Exception as error:  # hub, network and disk errors come in a dozen types
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{hub_id} is no folder here, and could not be fetched from the Hugging Face Hub: "
            f"{reason[0] if reason else type(error).__name__}"
        ) from None
