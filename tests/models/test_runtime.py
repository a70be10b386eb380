"""Runtimes: the fast ways give what the plain way gives, the same bytes, or are not taken."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slidetriage.errors import ModelError
from slidetriage.models import Device, EncoderCard, TileEncoder, load_bundle, random_encoder
from slidetriage.models import compiled as compiled_module
from slidetriage.models import precision as precision_module
from slidetriage.models import runtime as runtime_module
from slidetriage.models.eager import EagerNetwork
from slidetriage.models.precision import NumberFormat
from slidetriage.models.probe import measure_drift, paint_probe

HALF = (0.5, 0.5, 0.5)
PLAIN = Device(precision="float32", threads=2, runtime="torch")
RESNET = EncoderCard("test_resnet", {}, "default", 96, 64, "bicubic", HALF, HALF)
VIT = EncoderCard(
    "test_vit",
    {"img_size": 64, "reg_tokens": 2},
    "class_and_mean",
    128,
    64,
    "bilinear",
    (0.7, 0.6, 0.7),
    (0.2, 0.25, 0.2),
)
FAST = [
    Device(precision="float32", threads=2, runtime="openvino"),
    Device(precision="bfloat16", threads=2, runtime="openvino"),
    Device(precision="bfloat16", threads=2, runtime="torch"),
    PLAIN,
]


def name(device: Device) -> str:
    return f"{device.runtime}-{device.precision}"


@pytest.fixture
def tiles() -> np.ndarray:
    return paint_probe(70, 64, 64)[3:]


@pytest.mark.parametrize("side", [64, 40, 100], ids="{} px".format)
@pytest.mark.parametrize("card", [RESNET, VIT], ids=lambda card: card.name)
@pytest.mark.parametrize("device", FAST[:2], ids=name)
def test_openvino_gives_the_features_of_torch(device: Device, card: EncoderCard, side: int) -> None:
    tiles = paint_probe(20, side, side)[8:]  # not the tiles that the choice was judged by
    encoder = random_encoder(card, seed=0, device=device)
    features = encoder.encode(tiles)
    choice = encoder.choice
    assert choice is not None
    wanted = device.precision if precision_module.has_bfloat16() else "float32"
    assert (choice.name, choice.precision) == ("openvino", wanted), choice.reason
    reference = random_encoder(card, seed=0, device=PLAIN).encode(tiles)
    assert features.dtype == np.float32
    assert measure_drift(features, reference) < precision_module.DRIFT_BOUNDS[choice.precision]
    assert (choice.drift > 1e-4) == (wanted == "bfloat16")


@pytest.mark.parametrize("device", FAST, ids=name)
def test_passes_at_a_time_change_nothing(device: Device, tiles: np.ndarray) -> None:
    alone = random_encoder(RESNET, seed=0, device=device).encode(tiles)
    encoder = random_encoder(RESNET, seed=0, device=dataclasses.replace(device, at_once=3))
    with ThreadPoolExecutor(6) as pool:
        several = list(pool.map(encoder.encode, [tiles] * 12))
    assert {features.tobytes() for features in several} == {alone.tobytes()}
    assert encoder.choice == random_encoder(RESNET, seed=0, device=device).prepare(64, 64)


def test_memory_that_runs_out_in_several_passes_halves_the_batch_once(
    tiles: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = dataclasses.replace(PLAIN, at_once=4)
    encoder = random_encoder(RESNET, seed=0, device=device)
    expected = encoder.encode(tiles)
    together, extract = threading.Barrier(4), EagerNetwork.extract

    def fail(network: EagerNetwork, images: Tensor) -> Tensor:
        if len(images) == 32:
            together.wait(60)
            raise torch.OutOfMemoryError("out of memory")
        return extract(network, images)

    monkeypatch.setattr(EagerNetwork, "extract", fail)
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(encoder.encode, [tiles] * 4))
    choice = encoder.choice
    assert choice is not None
    assert choice.batch_tiles == 16
    assert choice.reason.count("did not suffice") == 1
    for features in several:
        assert measure_drift(features, expected) < 1e-5


@pytest.mark.parametrize("device", FAST, ids=name)
def test_same_bytes_wherever_a_tile_stands(device: Device, tiles: np.ndarray) -> None:
    encoder = random_encoder(RESNET, seed=0, device=device)
    features = encoder.encode(tiles)
    for _ in range(3):
        assert encoder.encode(tiles).tobytes() == features.tobytes()
    order = np.random.default_rng(0).permutation(len(tiles))
    assert encoder.encode(tiles[order]).tobytes() == features[order].tobytes()
    assert encoder.encode(tiles[::-1])[::-1].tobytes() == features.tobytes()
    for one in (0, 31, 32, len(tiles) - 1):
        assert encoder.encode(tiles[one : one + 1]).tobytes() == features[one].tobytes()
    again = random_encoder(RESNET, seed=0, device=device)
    assert again.encode(tiles).tobytes() == features.tobytes()
    assert again.choice == encoder.choice


class Fragile(nn.Module):
    """A backbone that lacks memory for more than `most` tiles."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 4)
        self.most, self.error = most, error
        self.passes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.layer(x).mean((2, 3))


def fragile(most: int, error: Exception) -> tuple[Fragile, TileEncoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Fragile(most, error)
    card = dataclasses.replace(RESNET, feature_size=5)
    return backbone, TileEncoder(backbone, card, weights_sha256="0" * 64, device=PLAIN)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("not enough memory: you tried")],
)
def test_batch_is_halved_until_memory_suffices(error: Exception, tiles: np.ndarray) -> None:
    _, wanted = fragile(1000, error)
    backbone, encoder = fragile(1000, error)
    encoder.encode(tiles[:2])
    backbone.most = 9  # other programs have taken memory meanwhile
    np.testing.assert_allclose(encoder.encode(tiles), wanted.encode(tiles), atol=1e-4)
    assert encoder.choice is not None
    assert encoder.choice.batch_tiles == 8
    for before in (32, 16):
        assert f"did not suffice for {before} tiles per pass" in encoder.choice.reason
    backbone.passes.clear()
    encoder.encode(tiles)
    assert set(backbone.passes) == {8}


@pytest.mark.parametrize("most", [1, 2, 5])
def test_too_little_memory_from_the_start(most: int, tiles: np.ndarray) -> None:
    _, wanted = fragile(1000, MemoryError())
    _, encoder = fragile(most, MemoryError())
    np.testing.assert_allclose(encoder.encode(tiles), wanted.encode(tiles), atol=1e-4)
    assert encoder.choice is not None
    assert encoder.choice.batch_tiles == {1: 1, 2: 2, 5: 4}[most]


def test_too_little_memory_for_one_tile_is_an_error(tiles: np.ndarray) -> None:
    backbone, encoder = fragile(0, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(ModelError, match="one tile") as caught:
        encoder.encode(tiles)
    assert caught.value.code == "E_OUT_OF_MEMORY"
    assert caught.value.mend
    assert min(backbone.passes) == 1


def test_other_errors_are_not_swallowed(tiles: np.ndarray) -> None:
    _, encoder = fragile(0, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        encoder.encode(tiles)


class Stubborn(nn.Module):
    """A backbone that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise NotImplementedError("not with me")
        return x.mean((2, 3))


def test_what_cannot_be_converted_is_run_by_torch(tiles: np.ndarray) -> None:
    card = dataclasses.replace(RESNET, feature_size=3)
    encoder = TileEncoder(Stubborn(), card, weights_sha256="0" * 64)
    assert encoder.encode(tiles).shape == (67, 3)
    assert encoder.choice is not None
    assert encoder.choice.name == "torch"
    assert "OpenVINO cannot take the network (not with me)" in encoder.choice.reason


def test_without_openvino_torch_is_used(tiles: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder = random_encoder(RESNET, seed=0, device=FAST[0])
    plain = random_encoder(RESNET, seed=0, device=PLAIN)
    assert encoder.encode(tiles).tobytes() == plain.encode(tiles).tobytes()
    assert encoder.choice is not None
    assert encoder.choice.name == "torch"
    assert "cannot be imported" in encoder.choice.reason


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        ({}, ("openvino", "bfloat16")),
        ({"bfloat16": 1e-9}, ("openvino", "float32")),
        ({"bfloat16": 1e-9, "float32": 0.0}, ("torch", "float32")),
    ],
)
def test_what_drifts_is_not_taken(
    bounds: dict[str, float],
    wanted: tuple[str, str],
    tiles: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision_module, "has_bfloat16", lambda: True)
    for kind, bound in bounds.items():
        monkeypatch.setitem(precision_module.DRIFT_BOUNDS, kind, bound)
    encoder = random_encoder(RESNET, seed=0, device=FAST[1])
    choice = encoder.prepare(64, 64)
    assert (choice.name, choice.precision) == wanted
    assert choice.reason.count("drifts by") == len(bounds)
    if wanted[0] == "torch":
        plain = random_encoder(RESNET, seed=0, device=PLAIN)
        assert encoder.encode(tiles).tobytes() == plain.encode(tiles).tobytes()


class Rounded:
    """A compiled network whose features have the precision of bfloat16 on every processor.

    On those without it OpenVINO computes in float32 whatever it is asked for.
    """

    def __init__(self, network: compiled_module.CompiledNetwork) -> None:
        self.batch_tiles, self.network = network.batch_tiles, network

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return torch.from_numpy(self.network(images)).bfloat16().float().numpy()


def test_probabilities_must_agree_too(
    bundle_path: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_it = compiled_module.Conversion.compile

    def compile_rounded(
        conversion: compiled_module.Conversion, precision: NumberFormat, **settings: int
    ) -> tuple[object, ...]:
        networks = compile_it(conversion, precision, **settings)
        return networks if precision == "float32" else tuple(map(Rounded, networks))

    monkeypatch.setattr(compiled_module.Conversion, "compile", compile_rounded)
    monkeypatch.setattr(precision_module, "has_bfloat16", lambda: True)
    monkeypatch.setitem(precision_module.DRIFT_BOUNDS, "bfloat16", 1.0)
    device = Device(precision="bfloat16", threads=1)
    loose = load_bundle(bundle_path, device=device)
    choice = loose.prepare()
    assert choice.precision == "bfloat16"
    assert choice.score_drift is not None
    assert 0 < choice.score_drift <= runtime_module.SCORE_DRIFT_BOUND
    monkeypatch.setattr(runtime_module, "SCORE_DRIFT_BOUND", choice.score_drift / 2)
    strict = load_bundle(bundle_path, device=device)
    scores = strict.tile_scores(images)
    assert strict.encoder.choice is not None
    assert strict.encoder.choice.precision == "float32"
    assert "moves probabilities by" in strict.encoder.choice.reason
    assert strict.identity == loose.identity
    plain = load_bundle(bundle_path, device=PLAIN)
    np.testing.assert_allclose(scores, plain.tile_scores(images), atol=1e-5)


def test_another_size_of_tile_prepares_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = random_encoder(RESNET, seed=0, device=FAST[0])
    plain = random_encoder(RESNET, seed=0, device=PLAIN)
    for shape in ((64, 64), (30, 50), (64, 64)):
        tiles = paint_probe(3, *shape)
        np.testing.assert_allclose(encoder.encode(tiles), plain.encode(tiles), atol=1e-4)
    calls: list[object] = []
    monkeypatch.setattr(encoder._runtime, "_prepare", lambda *a: calls.append(a))
    assert encoder.prepare(64, 64) == encoder.choice
    assert not calls


def test_probe_is_deterministic_and_not_flat() -> None:
    probe = paint_probe(8, 50, 40)
    assert probe.shape == (8, 50, 40, 3)
    assert probe.tobytes() == paint_probe(8, 50, 40).tobytes()
    assert (probe.reshape(8, -1).std(1) > 20).all()
    assert len({tile.tobytes() for tile in probe}) == 8


def test_drift_is_relative_and_nan_is_seen() -> None:
    reference = np.array([[3, 4], [0, 1]], np.float32)
    assert measure_drift(reference, reference) == 0
    other = reference + np.array([[0.5, 0], [0, 0]], np.float32)
    assert measure_drift(other, reference) == pytest.approx(0.1)
    endless = np.full_like(reference, np.inf)
    assert np.isnan(measure_drift(endless, endless))


def test_telemetry_is_never_loaded(bundle_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from slidetriage.models import Device, load_bundle\n"
        "assert 'openvino' not in sys.modules\n"
        f"bundle = load_bundle({str(bundle_path)!r}, device=Device(precision='float32'))\n"
        "bundle.encode(np.zeros((1, 20, 20, 3), np.uint8))\n"
        "assert bundle.encoder.choice.name == 'openvino', bundle.encoder.choice\n"
        "loaded = [m for m in sys.modules if m.startswith('openvino_telemetry')]\n"
        "assert loaded == ['openvino_telemetry'] and sys.modules[loaded[0]] is None, loaded\n"
        "print('private')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": "src", "PATH": ""},
    )
    assert (done.returncode, done.stdout) == (0, "private\n"), done.stderr


def test_openvino_is_imported_in_one_place() -> None:
    root = Path(__file__).parents[2]
    found = [
        path.relative_to(root).as_posix()
        for folder in ("models", "workflows", "tiling", "wsi", "src")
        for path in sorted((root / folder).rglob("*.py"))
        if not path.is_symlink() and "import openvino" in path.read_text()
    ]
    assert found == [Path("models", Path(compiled_module.__file__).name).as_posix()]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_gives_the_features_of_the_cpu(precision: str, tiles: np.ndarray) -> None:
    device = Device("cuda", precision=precision, batch_tiles=16)  # type: ignore[arg-type]  # one of them
    encoder = random_encoder(RESNET, seed=0, device=device)
    features = encoder.encode(tiles)
    reference = random_encoder(RESNET, seed=0, device=PLAIN).encode(tiles)
    assert encoder.choice is not None
    assert encoder.choice.precision == precision
    assert measure_drift(features, reference) < precision_module.DRIFT_BOUNDS[precision]
    assert encoder.encode(tiles[::-1])[::-1].tobytes() == features.tobytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_finds_its_batch(tiles: np.ndarray) -> None:
    choice = random_encoder(RESNET, seed=0, device="cuda").prepare(64, 64)
    assert choice.batch_tiles in {32 * 2**i for i in range(6)}
    assert choice.threads is None


def test_equal_networks_are_converted_once() -> None:
    """Torch keeps what it traced for ever, so a run after the other must not trace it again."""
    made: list[int] = []

    def convert(network: nn.Module, name: str = "a") -> int:
        return compiled_module.convert_once(name, network, lambda: made.append(0) or len(made))

    def network(bias: float = 0.0) -> nn.Module:
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.weight, 0.5)
        nn.init.constant_(layer.bias, bias)
        return nn.Sequential(layer, nn.BatchNorm1d(2))

    first = convert(network())
    assert convert(network()) == first
    others = [convert(network(), "b"), convert(network(1e-7)), convert(network().half())]
    assert len({first, *others}) == 4
    assert convert(network()) == first
    convert(nn.Sequential(network()[0], nn.BatchNorm1d(2), nn.ReLU()))
    assert convert(network()) == first, "the one used last is kept"
    assert convert(network(), "b") > max(others), "the one not used for longest is not"


def test_runs_after_each_other_share_what_openvino_made() -> None:
    device = Device(precision="float32", threads=1, runtime="openvino")
    compiled_module._converted.clear()
    for _ in range(2):
        assert random_encoder(RESNET, seed=0, device=device).prepare(64, 64).name == "openvino"
    assert len(compiled_module._converted) == 1
    random_encoder(RESNET, seed=1, device=device).prepare(64, 64)
    assert len(compiled_module._converted) == 2
