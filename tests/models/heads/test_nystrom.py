"""Nystrom attention against exact attention, and against its equation with explicit matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slidetriage.errors import UsageError
from slidetriage.models.heads.nystrom import NystromAttention, pseudo_inverse


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def split(layer: NystromAttention, sequence: np.ndarray) -> list[np.ndarray]:
    """N x H -> query (scaled), key and value, each A x N x d."""
    parts = np.split(sequence @ layer.project.weight.detach().numpy().T, 3, axis=1)
    heads = [p.reshape(len(sequence), layer.heads, -1).transpose(1, 0, 2) for p in parts]
    heads[0] = heads[0] / np.sqrt(heads[0].shape[2])
    return heads


def finish(layer: NystromAttention, mixed: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Add the convolution of the values, join the heads and project."""
    kernel = layer.residual.weight.detach().numpy()[:, 0, :, 0]  # A x kernel
    half = kernel.shape[1] // 2
    around = np.pad(value, ((0, 0), (half, half), (0, 0)))
    for head, tokens in np.ndindex(*value.shape[:2]):
        window = around[head, tokens : tokens + kernel.shape[1]]
        mixed[head, tokens] += kernel[head] @ window
    joined = mixed.transpose(1, 0, 2).reshape(mixed.shape[1], -1)
    return joined @ layer.out.weight.detach().numpy().T + layer.out.bias.detach().numpy()


@torch.inference_mode()
def test_as_many_landmarks_as_tokens_is_exact_attention() -> None:
    layer = NystromAttention(6, heads=2, landmarks=9, iterations=40, kernel=5).double().eval()
    sequence = torch.randn(1, 9, 6).double()
    query, key, value = split(layer, sequence[0].numpy())
    exact = softmax(query @ key.transpose(0, 2, 1)) @ value
    found = layer.mix(layer.prepare(sequence), 9)
    np.testing.assert_allclose(found[0], finish(layer, exact, value), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("length", [4, 12, 18])
@torch.inference_mode()
def test_equation_with_explicit_matrices(length: int) -> None:
    layer = NystromAttention(6, heads=2, landmarks=4, iterations=40, kernel=5).double().eval()
    sequence = torch.randn(1, length, 6).double()
    fill = -length % 4
    filled = np.concatenate([np.zeros((fill, 6)), sequence[0].numpy()])
    query, key, value = split(layer, filled)
    query_mean = query.reshape(2, 4, -1, 3).mean(axis=2)
    key_mean = key.reshape(2, 4, -1, 3).mean(axis=2)
    near = softmax(query @ key_mean.transpose(0, 2, 1))
    between = softmax(query_mean @ key_mean.transpose(0, 2, 1))
    among = softmax(query_mean @ key.transpose(0, 2, 1))
    whole = near @ np.linalg.pinv(between) @ among  # A x N x N
    parts = layer.prepare(sequence)
    expected = finish(layer, whole @ value, value)[fill:]
    np.testing.assert_allclose(layer.mix(parts, length)[0], expected, rtol=1e-6, atol=1e-8)
    row = layer.row(parts, length)[0]
    np.testing.assert_allclose(row, whole[:, fill, fill:], rtol=1e-6, atol=1e-8)


def test_pseudo_inverse_converges_to_numpys() -> None:
    matrix = torch.randn(2, 3, 5, 5).double().softmax(-1)
    found = pseudo_inverse(matrix, 60)
    np.testing.assert_allclose(found, np.linalg.pinv(matrix.numpy()), rtol=1e-6, atol=1e-6)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match="kernel must be odd, not 4"):
        NystromAttention(6, heads=2, kernel=4)
