"""What to think: encoders, heads and bundles; arrays in, arrays out. Owns torch and timm."""

from .predictions import Bag, BagPrediction

__all__ = ["Bag", "BagPrediction"]
