"""``--zero-shot`` of evl predict and evl evaluate: no run, but class names and a CLIP-like encoder."""

from __future__ import annotations

import os

import typer

from evl.cli.common import tell
from evl.runtime.files import expand_home


def refuse_mixed(is_zero_shot: bool, of_zero_shot: tuple, of_a_run: tuple) -> None:
    """Usage errors: options of ``--zero-shot`` with a run, or the other way round. An option is None or empty where it
    was not given."""
    if not is_zero_shot and any(of_zero_shot):
        raise typer.BadParameter("--backbone, --weights and --prompt go with --zero-shot; a run has its own")
    if is_zero_shot and any(option is not None for option in of_a_run):
        raise typer.BadParameter(
            "--stride, --frames-per-second and --image-size go with a run; --zero-shot has --num-frames"
        )


def zero_shot_model(class_names, backbone: str | None, weights, prompts, num_frames: int | None, device: str | None):
    """The untrained classifier, on its device."""
    from evl.backbones.embedded import EMBEDDED
    from evl.runtime.distributed import pick_device
    from evl.saving import zero_shot
    from evl.sections import PROMPTS

    if backbone is None:
        if weights is not None:
            raise typer.BadParameter("--weights goes with --backbone: the name of what the file holds")
        backbone = EMBEDDED
        tell(
            f"backbone: {EMBEDDED}, which knows drawings, not the world; for real videos name a CLIP-like one, such as "
            "--backbone vit_base_patch16_clip_quickgelu_224.openai",
            style="yellow",
        )
    options = dict(weights=weights, prompts=tuple(prompts) or PROMPTS, num_frames=num_frames or 8)
    return zero_shot(backbone, class_names, **options).to(pick_device(device))


def class_names_of(text: str) -> tuple[str, ...]:
    """Of ``opening a door, closing a door``, or of a file with a name on each line (``@FILE``, or just its path)."""
    from evl.data.manifests.labels import clean_label
    from evl.data.manifests.manifest import read_class_names
    from evl.errors import ConfigError

    text = f"@{expand_home(text[1:])}" if text.startswith("@") else expand_home(text)
    if text.startswith("@") or os.path.isfile(text):  # which is False for what is too long to be a path
        return read_class_names(text.removeprefix("@"))
    names = tuple(name for name in map(clean_label, text.split(",")) if name)
    if len(names) < 2:
        raise ConfigError(
            f"--zero-shot {text!r}: expected at least two class names, as 'opening a door, closing a door', or a file"
        )
    return names
