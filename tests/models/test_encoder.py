"""Encoders: the transform against Pillow, equal bytes whatever the batch, honest identifiers."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from slidetriage.errors import UsageError
from slidetriage.models import Device, EncoderCard, TileEncoder, TileTransform, random_encoder


def resize_with_pillow(image: np.ndarray, side: int, kernel: Image.Resampling) -> np.ndarray:
    channels = [
        np.asarray(Image.fromarray(image[..., c].astype(np.float32)).resize((side, side), kernel))
        for c in range(3)
    ]
    return np.stack(channels)


@pytest.mark.parametrize("side", [20, 33, 64])
@pytest.mark.parametrize(
    ("name", "kernel"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
def test_transform_equals_pillow(side: int, name: str, kernel: Image.Resampling) -> None:
    images = np.random.default_rng(side).integers(0, 256, (3, 50, 50, 3), np.uint8)
    mean, std = (0.7, 0.58, 0.70), (0.21, 0.23, 0.17)
    transform = TileTransform(side, name, mean, std)  # type: ignore[arg-type]  # parametrised
    found = transform(torch.from_numpy(images)).numpy()
    for image, tensor in zip(images, found, strict=True):
        resized = resize_with_pillow(image, side, kernel).clip(0, 255) / 255
        wanted = (resized - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
        # Bicubic: Pillow uses a = -0.5 and so does torch when antialiasing.
        np.testing.assert_allclose(tensor, wanted, atol=2e-5)


def test_transform_leaves_pixels_of_the_right_size_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    found = TileTransform(32, "bilinear", (0, 0, 0), (1, 1, 1))(torch.from_numpy(images))
    np.testing.assert_array_equal(
        found.numpy(), images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    )


@functools.cache
def small_encoder() -> TileEncoder:
    half = (0.5, 0.5, 0.5)
    card = EncoderCard("mobilenetv2_035", {}, "default", 1280, 32, "bilinear", half, half)
    return random_encoder(card, seed=0)


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_features_do_not_depend_on_batch_mates_or_position(count: int, seed: int) -> None:
    encoder, rng = small_encoder(), np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 20, 20, 3), np.uint8)
    features, order = encoder.encode(images), rng.permutation(count)
    assert features.tobytes() == encoder.encode(images).tobytes()
    assert features[order].tobytes() == encoder.encode(images[order]).tobytes()
    one = int(rng.integers(count))
    assert features[one].tobytes() == encoder.encode(images[one : one + 1]).tobytes()


def test_no_tiles_give_no_features(encoder_card: EncoderCard) -> None:
    features = random_encoder(encoder_card, seed=0).encode(np.empty((0, 20, 20, 3), np.uint8))
    assert features.shape == (0, 256)
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 20, 20, 3), np.float32),
        np.zeros((2, 20, 20, 4), np.uint8),
        np.zeros((20, 20, 3), np.uint8),
        np.zeros((2, 0, 20, 3), np.uint8),
        [[1, 2]],
    ],
)
def test_other_arrays_are_refused(images: np.ndarray, encoder_card: EncoderCard) -> None:
    with pytest.raises(UsageError) as caught:
        random_encoder(encoder_card, seed=0).encode(images)
    assert caught.value.mend


def test_identifier_tells_weights_and_transform_apart(encoder_card: EncoderCard) -> None:
    other = dataclasses.replace(encoder_card, input_px=48)
    names = [
        random_encoder(encoder_card, seed=0).identifier,
        random_encoder(encoder_card, seed=1).identifier,
        random_encoder(other, seed=0).identifier,
    ]
    assert len(set(names)) == 3
    assert names[0] == random_encoder(encoder_card, seed=0).identifier
    assert names[0].startswith("test_efficientnet-")


def test_class_and_mean_joins_class_token_and_mean_of_patches() -> None:
    card = EncoderCard(
        "test_vit",
        {"img_size": 32, "dynamic_img_size": True, "reg_tokens": 2},
        "class_and_mean",
        128,
        32,
        "bicubic",
        (0, 0, 0),
        (1, 1, 1),
    )
    encoder = random_encoder(card, seed=0, device=Device(precision="float32"))
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        tokens = encoder.backbone.forward_features(x).numpy()
    assert tokens.shape[1] == 1 + 2 + 4
    wanted = np.concatenate([tokens[:, 0], tokens[:, 3:].mean(1)], 1)
    np.testing.assert_allclose(encoder.encode(images), wanted, atol=1e-4)
