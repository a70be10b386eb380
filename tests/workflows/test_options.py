"""Which device a command computes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slidetriage.errors import UsageError
from slidetriage.workflows import options
from slidetriage.workflows.options import choose_device, has_cuda


def test_torch_is_asked_where_a_driver_left_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("sys.platform", "linux")
    wanted = [str(tmp_path / "nvidia*"), str(tmp_path / "dxg")]
    assert not has_cuda(wanted)
    (tmp_path / "nvidia0").touch()
    assert has_cuda(wanted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not has_cuda(wanted)


def test_elsewhere_than_on_linux_torch_is_always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert has_cuda(())


@pytest.mark.parametrize("there", [False, True])
def test_a_device_is_one_that_is_there(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "has_cuda", lambda: there)
    assert choose_device("auto") == ("cuda" if there else "cpu")
    assert choose_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="no device 'tpu'"):
        choose_device("tpu")
    if there:
        assert choose_device("cuda:1") == "cuda:1"
    else:
        with pytest.raises(UsageError, match="no CUDA device"):
            choose_device("cuda:1")
