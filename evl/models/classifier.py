"""The classifier: frozen backbone, decoder and head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn

from evl.errors import ConfigError
from evl.runtime.precision import without_autocast, without_gradients
from evl.runtime.text import clean_label
from evl.types import EncoderFacts, LayerFeatures, MappedFeatures


class ClassifierHead(nn.Module):
    """LayerNorm → Dropout → Linear: (B,D) -> logits (B,Y)."""

    def __init__(self, width: int, num_classes: int, dropout: float = 0.0):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(self.norm(x.to(self.norm.weight.dtype))))  # decoders may return a wider dtype


class Classifier(nn.Module):
    """Clips (B,T,C,H,W), normalized floats -> logits (B,Y).

    Args:
        backbone: a submodule that maps clips to a list of LayerFeatures, shallow to deep. It is frozen: it stays in
            evaluation mode, its parameters take no gradients, and it runs without autograd. A model that was trained on
            stored features has EncoderFacts instead, and takes only features (``classify``).
        decoder: maps features to a vector per clip, (B,D).
        head: maps the vector to logits.
        class_names: Y names, in the order of the logits; () if unknown.
        zero_shot: also maps features to logits, which are added. Training starts from them.

    Attributes:
        class_names: a tuple of the names. Other names can be set, as many as the head has outputs:
            ``model.class_names = ["a", "b"]``. They are saved with the model.
        card: an ``evl.models.card.ModelCard`` if the model was loaded or built from a config, else None. A model with a
            card has its class names in it.
    """

    def __init__(
        self,
        backbone: nn.Module | EncoderFacts,
        decoder: nn.Module,
        head: nn.Module,
        class_names: Sequence[str] = (),
        *,
        zero_shot: nn.Module | None = None,
    ):
        super().__init__()
        self.backbone = None if isinstance(backbone, EncoderFacts) else backbone
        self._facts = backbone if isinstance(backbone, EncoderFacts) else None
        self.decoder = decoder
        self.head = head
        self.zero_shot = zero_shot
        self.card = None
        self._class_names = tuple(class_names)
        for parameter in self.backbone.parameters() if self.backbone is not None else ():
            parameter.requires_grad = False
        self.train()

    @property
    def encoder(self) -> nn.Module | EncoderFacts:
        """The backbone or its facts: ``spec``, ``taps``, ``preprocessing``, ``weights_hash`` and ``origin``."""
        return self._facts if self.backbone is None else self.backbone

    def require_backbone(self) -> nn.Module:
        """Returns the backbone. Raises ConfigError if the model has none."""
        if self.backbone is None:
            raise ConfigError(
                f"this model was trained on stored features, so its encoder, {self._facts.spec.name}, is not in "
                "memory; save the model and load it with evl.load, or give it features (model.classify)"
            )
        return self.backbone

    @property
    def reads_maps(self) -> bool:
        """Whether the decoder reads neighbor maps (``evl.models.crossframe``)."""
        return getattr(self.decoder, "reads_maps", False)

    @property
    def reads_query_key(self) -> bool:
        """Whether the decoder reads the encoder's own queries and keys, in addition to tokens."""
        return getattr(self.decoder, "reads_query_key", False)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names if self.card is None else self.card.class_names

    @class_names.setter
    def class_names(self, names: Iterable[str]) -> None:
        """Raises ConfigError for empty or repeated names, and if the head has another number of outputs."""
        names, before = checked_class_names(names), self.class_names
        count = self.num_outputs
        if count is not None and len(names) != count:
            raise ConfigError(
                f"{len(names)} class names for a head of {count} outputs: give one name for each, in the order of the "
                "logits; for other classes, replace the head first, then set the names"
            )
        if self.card is None:
            self._class_names = names
            return
        self.card = replace(self.card, class_names=names)
        # scores stay valid if names are only spelled otherwise; in another order they would mean other predictions
        if any(name in before and before.index(name) != y for y, name in enumerate(names)):
            self.card = replace(self.card, scores=None)

    @property
    def num_outputs(self) -> int | None:
        """Y, by the last linear layer of the head or by the text embeddings of a zero-shot model; else None."""
        if layers := [part for part in self.head.modules() if isinstance(part, nn.Linear)]:
            return layers[-1].out_features
        text = getattr(self.decoder, "text", None)
        return len(text) if isinstance(text, Tensor) else None

    def forward(self, clips: Tensor) -> Tensor:
        return self.classify(self.features(clips))

    def features(self, clips: Tensor) -> list[LayerFeatures]:
        """Clips (B,T,C,H,W) -> the frozen backbone's LayerFeatures per tapped block, without autograd.

        Raises ConfigError if the model has no backbone.
        """
        backbone = self.require_backbone()
        if clips.ndim != 5:
            raise ValueError(f"clips of shape {tuple(clips.shape)}; expected (B,T,C,H,W)")
        with without_gradients():
            return backbone(clips)

    def classify(self, features: Sequence[LayerFeatures | MappedFeatures]) -> Tensor:
        """Features of tapped blocks -> logits (B,Y). Only this part has gradients.

        It computes in the dtypes of features and parameters, also under autocast. The features, which are large, are
        narrow already; all other tensors are small.
        """
        with without_autocast(features[0].tokens.device):
            logits = self.head(self.decoder(features))
            return logits if self.zero_shot is None else self.zero_shot(features) + logits

    def compile(self) -> None:
        """Applies ``torch.compile`` to backbone and decoder, in place. The first call then takes minutes."""
        if self.backbone is not None:
            self.backbone.compile()
        self.decoder.compile()

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.backbone is not None:
            self.backbone.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Classifier:
        """Applies to decoder and head; the backbone and ``zero_shot`` stay frozen."""
        for part in (self.decoder, self.head):
            part.requires_grad_(requires_grad)
        return self

    def trainable_state(self) -> dict[str, Tensor]:
        """Returns the state of all parts except the backbone, as a saved model holds it."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Loads what ``trainable_state`` returned. Raises RuntimeError if keys or shapes differ."""
        self.decoder.load_state_dict(_below(state, "decoder."))
        self.head.load_state_dict(_below(state, "head."))
        if self.zero_shot is not None:
            self.zero_shot.load_state_dict(_below(state, "zero_shot."))

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for parameter in self.parameters() if parameter.requires_grad)


def checked_class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names without surrounding blanks, in Unicode's composed form (NFC).

    Raises ConfigError if the argument is not a list of names, or a name is empty, repeated, or has a line break.
    """
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise ConfigError(f"class names {names!r}: expected a list of names")
    names = tuple(names)
    for place, name in enumerate(names):
        if not isinstance(name, str):
            raise ConfigError(f"class name {place} is {name!r}: expected a text")
    names = tuple(map(clean_label, names))
    for place, name in enumerate(names):
        if not name:
            raise ConfigError(f"class name {place} is empty")
        if len(name.splitlines()) != 1:
            raise ConfigError(f"class name {place} is {name!r}: it has a line break")
        if any("\ud800" <= sign <= "\udfff" for sign in name):
            raise ConfigError(f"class name {place} is {name!r}: it is not UTF-8")
        if (first := names.index(name)) != place:
            raise ConfigError(f"the class name {name!r} is there twice, as {first} and {place}")
    return names


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
