"""The Hugging Face Hub: is a path a model there, and where is it on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from evl.errors import CheckpointError
from evl.saving.formats import CARD, WEIGHTS


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
