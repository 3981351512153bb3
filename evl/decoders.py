"""The list of decoders: what may stand in ``model.decoder``, what each reads, and which settings are its own.

A decoder of evl has one line here and its own file. A decoder from outside is named by where it is imported from,
``my_package.my_module:MyDecoder`` (docs/adding-a-decoder.md). ``evl.models.registry`` builds what is listed here; this
file imports nothing of it, so that a config can be checked by names alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evl.runtime.import_path import is_import_path


@dataclass(frozen=True)
class DecoderEntry:
    """What is known of a decoder before it is built.

    Attributes:
        title: what it is called in sentences.
        described: what a model with it is, in words.
        path: ``module:Class``. Of evl's own, ``Class.from_config(config, spec, num_frames, num_layers)`` makes one.
            None: nothing is built, because there is nothing to train.
        settings: the fields of ``ModelConfig`` that are its own.
        reads_all_taps: whether it has a layer for each tapped block; otherwise it reads the deepest alone.
        maps_if: the setting with which it reads neighbor maps, None where it never does.
        defaults: what a setting that is None stands for.
        why_not: for settings that it cannot have, the reason; these are refused even if they were set elsewhere.
    """

    title: str
    described: str
    path: str | None
    settings: tuple[str, ...] = ()
    reads_all_taps: bool = False
    maps_if: str | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    why_not: Mapping[str, str] = field(default_factory=dict)


_ATTENTION = ("num_heads", "mlp_ratio", "mlp_dropout")
DECODERS = {
    "evl": DecoderEntry(
        "the EVL decoder",
        "an EVL decoder",
        "evl.models.decoder:EVLDecoder",
        (*_ATTENTION, "qkv_width", "temporal_conv", "temporal_position", "cross_frame", "num_queries", "query_init"),
        reads_all_taps=True,
        maps_if="cross_frame",
    ),
    "linear": DecoderEntry("the mean-pooled linear probe", "a mean-pooled linear probe", "evl.models.probes:MeanPool"),
    "attentive": DecoderEntry(
        "the attentive probe",
        "an attentive probe",
        "evl.models.probes:AttentiveProbe",
        (*_ATTENTION, "probe_blocks", "probe_positions"),
        defaults={"probe_blocks": 4, "probe_positions": True},
        why_not={
            "num_queries": "the attentive probe has one query",
            "qkv_width": "the attentive probe is as wide as the tokens",
        },
    ),
    "zero_shot": DecoderEntry("zero-shot", "class names alone, untrained,", None),
}
OPTIONS = "options"  # the setting of every decoder from outside
OWN_SETTINGS = tuple(dict.fromkeys([name for one in DECODERS.values() for name in one.settings] + [OPTIONS]))


def find_decoder(name: str) -> DecoderEntry:
    """What is known of the decoder of that name. Raises ValueError for a name that means none."""
    if name in DECODERS:
        return DECODERS[name]
    if is_import_path(name):
        return DecoderEntry(name, f"the decoder `{name}`", name, (OPTIONS,), reads_all_taps=True)
    known = ", ".join(map(repr, DECODERS))
    raise ValueError(f"expected {known}, or the import path of your own, such as my_module:MyDecoder")


def foreign_setting(decoder: str, names: list[str]) -> str | None:
    """A sentence on the first of ``names`` (of settings) that ``decoder`` does not have; None where it has them all."""
    own = find_decoder(decoder)
    for name in names:
        if name not in OWN_SETTINGS or name in own.settings:
            continue
        if name == OPTIONS:
            settings = f"; the settings of {own.title} are {', '.join(own.settings)}" if own.settings else ""
            return f"options are for decoders from outside evl (model.decoder=my_module:MyDecoder){settings}"
        if reason := own.why_not.get(name):
            return f"{reason}; unset {name}, which is {_owners(name)[0]}"
        whose, names_of = _owners(name)
        return f"{name} is {whose}; set decoder={names_of} with it, or unset {name}"
    return None


def _owners(setting: str) -> tuple[str, str]:
    owners = {name: one.title for name, one in DECODERS.items() if setting in one.settings}
    return " and ".join(f"{title}'s" for title in owners.values()), " or ".join(owners)
