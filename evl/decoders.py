"""The list of decoders: the values of ``model.decoder``, what each decoder reads, and which settings it has.

A decoder of evl has an entry here and its own file. A decoder from outside is named by its import path,
``my_package.my_module:MyDecoder`` (docs/adding-a-decoder.md). ``evl.models.registry`` builds the decoders. This file
does not import them, so a config can be checked without building anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evl.runtime.import_path import is_import_path


@dataclass(frozen=True)
class DecoderEntry:
    """The facts about a decoder that are known before it is built.

    Attributes:
        title: its name in messages.
        phrase: how the page of a saved model mentions it.
        path: ``module:Class``. ``Class.from_config(config, spec, num_frames, num_layers)`` makes a decoder of evl.
            None: there is no class, because nothing is trained.
        settings: the fields of ``ModelConfig`` that it has.
        reads_all_taps: whether it has a layer for each tapped block; if not, it reads only the deepest.
        reads_start: whether it also reads the token map that enters its first tapped block.
        maps_if: the setting that makes it read neighbor maps; None if it never does.
        defaults: the meaning of settings that are None: a value, or a function of the ``ModelConfig``.
        starts_with: settings that all decoders have, whose default is another with this decoder.
        why_not: settings that it cannot have, with the reason. They are refused in any config with this decoder.
    """

    title: str
    phrase: str
    path: str | None
    settings: tuple[str, ...] = ()
    reads_all_taps: bool = False
    reads_start: bool = False
    maps_if: str | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)
    starts_with: Mapping[str, object] = field(default_factory=dict)
    why_not: Mapping[str, str] = field(default_factory=dict)

    @property
    def may_read_0(self) -> bool:
        """Whether its taps may have 0, which is what enters block 1."""
        return self.reads_start or is_import_path(self.title)


def usual_side_norm(causal: bool) -> str:
    """Returns the norm of a side network for which none is set."""
    return "batch" if causal else "channel"


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
    "side": DecoderEntry(
        "the side network",
        "a side network",
        "evl.models.side:SideDecoder",
        ("mlp_ratio", "side_width", "side_norm", "side_readout", "causal"),
        reads_all_taps=True,
        reads_start=True,
        defaults={"side_norm": lambda model: usual_side_norm(model.causal), "side_readout": "mean"},
        starts_with={"taps": "all", "head_dropout": 0.0},
    ),
    "zero_shot": DecoderEntry("zero-shot", "class names alone, untrained,", None),
}
USUAL = ("side", "evl")  # a config that names no decoder has the first of these that has all of its settings
START = "start and "  # in front of taps: also what enters the first tapped block
LOOKS_AHEAD = ("clip", "channel")  # norms of the side network by which a frame depends on frames after it
# settings that are refused with another decoder wherever they differ from their default
NEVER_LEFT_OVER = ("probe_blocks", "probe_positions", "side_width", "side_norm", "side_readout", "causal")
OPTIONS = "options"  # the only setting of decoders from outside
OWN_SETTINGS = tuple(dict.fromkeys([name for one in DECODERS.values() for name in one.settings] + [OPTIONS]))


def with_start(taps: str | Sequence[int]) -> str | tuple[int, ...]:
    """Returns these taps together with the map that enters the first tapped block; a list that has 0 is not changed."""
    if isinstance(taps, str):
        return f"{START}{taps}"
    return tuple(taps) if taps[0] == 0 else (taps[0] - 1, *taps)


def starts_with(name: str | None) -> dict[str, object]:
    """Returns the settings of all decoders whose default is another with this one; {} for one that is not known."""
    return dict(find_decoder(name).starts_with) if name is not None and is_decoder(name) else {}


def decoder_with(settings: Sequence[str]) -> str:
    """Returns the decoder of a config that names none, but chooses these settings of the model: one of ``USUAL``."""
    return next((name for name in USUAL if foreign_setting(name, settings) is None), USUAL[0])


def impossible(name: str, taps: str | Sequence[int], *, causal: bool, side_norm: str | None) -> str | None:
    """Returns an error message for settings of a decoder that cannot be together; None if they can."""
    entry = find_decoder(name)
    if not isinstance(taps, str):
        if not taps or list(taps) != sorted(set(taps)):
            return "taps must be block numbers that rise, for example [3, 6, 9, 12]"
        if taps[-1] == 0:
            return "taps has no block, only 0, which is what enters block 1"
        if taps[0] == 0 and not entry.may_read_0:
            return f"taps has 0, which is what enters block 1; {entry.title} reads the output of blocks, from 1"
    if causal and side_norm in LOOKS_AHEAD:
        return (
            f"causal needs a norm that reads no frame ahead; side_norm={side_norm} takes statistics of the whole clip: "
            "take batch, layer, rms or scale"
        )
    return None


def is_decoder(name: str) -> bool:
    """Whether ``model.decoder`` may be ``name``; the module of an import path need not be there."""
    return name in DECODERS or is_import_path(name)


def find_decoder(name: str) -> DecoderEntry:
    """Returns the entry of a decoder. Raises ValueError for an unknown name."""
    if name in DECODERS:
        return DECODERS[name]
    if is_import_path(name):
        return DecoderEntry(name, f"the decoder `{name}`", name, (OPTIONS,), reads_all_taps=True)
    known = ", ".join(map(repr, DECODERS))
    raise ValueError(f"expected {known}, or the import path of your own, such as my_module:MyDecoder")


def foreign_setting(decoder: str, names: Sequence[str]) -> str | None:
    """Returns an error message for the first setting in ``names`` that ``decoder`` lacks; None if it has them all."""
    own = find_decoder(decoder)
    for name in names:
        if name not in OWN_SETTINGS or name in own.settings:
            continue
        if name == OPTIONS:
            settings = f"; the settings of {own.title} are {', '.join(own.settings)}" if own.settings else ""
            return f"options are for decoders from outside evl (model.decoder=my_module:MyDecoder){settings}"
        if reason := own.why_not.get(name):
            return f"{reason}; unset {name}, which is {_owners(name)[0]}"
        owners, decoders = _owners(name)
        return f"{name} is {owners}; set decoder={decoders} with it, or unset {name}"
    return None


def _owners(setting: str) -> tuple[str, str]:
    """Returns the decoders that have a setting, as titles ("the EVL decoder's") and as values of ``model.decoder``."""
    owners = {name: one.title for name, one in DECODERS.items() if setting in one.settings}
    return " and ".join(f"{title}'s" for title in owners.values()), " or ".join(owners)
