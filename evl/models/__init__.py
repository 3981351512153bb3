"""Features → logits: decoders, probes, zero-shot, and the classifier that contains them."""

from evl.models.classifier import Classifier, ClassifierHead
from evl.models.decoder import EVLDecoder
from evl.models.probes import AttentiveProbe, MeanPool
from evl.models.side import SideDecoder
from evl.models.zero_shot import ZeroShot

__all__ = ["AttentiveProbe", "Classifier", "ClassifierHead", "EVLDecoder", "MeanPool", "SideDecoder", "ZeroShot"]
