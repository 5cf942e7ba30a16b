"""The head `psp`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from support.made_heads import embeddings, made, noisy

from ovavel.training.heads.psp import PSPHead, pair_errors, strong_shares


def exact(connected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row by row, with the published threshold for as many segments as there are."""
    result = np.zeros_like(connected)
    for row, values in zip(result, connected, strict=True):
        shares = values / (values.sum() + 1e-8)
        kept = np.where(shares > 0.95 / len(values), shares, 0)
        row[:] = kept / (kept.sum() + 1e-8)
    return result


def test_its_size() -> None:
    assert sum(weight.numel() for weight in PSPHead().parameters()) == 6_293_504


@given(
    st.integers(1, 12).flatmap(
        lambda n: arrays(np.float64, (n, n), elements=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0, 3.0]))
    )
)
def test_strong_connections_are_those_above_95_percent_of_an_even_share(connected: NDArray[np.float64]) -> None:
    got = strong_shares(torch.from_numpy(connected)[None])[0].numpy()
    np.testing.assert_allclose(got, exact(connected), atol=1e-12)
    sums = got.sum(axis=1)
    assert ((np.abs(sums - 1) < 1e-6) | (sums == 0)).all()
    assert ((sums == 0) == (connected.sum(axis=1) == 0)).all()  # there is always one that is not below the mean


@pytest.mark.parametrize("segments", [1, 2, 7, 10])
def test_even_connections_are_all_kept(segments: int) -> None:
    even = torch.full((1, segments, segments), 0.3)
    torch.testing.assert_close(strong_shares(even), torch.full_like(even, 1 / segments))
    weak = even.clone()
    weak[..., 0] *= 0.9  # its share is below 0.95 of the others' mean
    assert segments == 1 or (strong_shares(weak)[..., 0] == 0).all()


def test_it_follows_its_formula() -> None:
    head = noisy(made("psp"))
    w = {name: tensor.numpy().astype(np.float64) for name, tensor in head.state_dict().items()}
    audio, vision, _ = embeddings(clips=1)
    a, v = 20 * audio[0].numpy().astype(np.float64), vision[0].numpy().astype(np.float64)

    def relu(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(x, 0)

    def finish(x: NDArray[np.float64], out: str) -> NDArray[np.float64]:
        y = relu(x @ w[out].T)
        y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6)
        return y * w["norm.weight"] + w["norm.bias"]

    v1, v2, a1, a2 = (relu(x @ w[f"{name}.weight"].T) for x, name in ((v, "v1"), (v, "v2"), (a, "a1"), (a, "a2")))
    b = relu(v2 @ a1.T / np.sqrt(16))
    expected = finish(a + exact(b.T) @ v1, "a_out.weight"), finish(v + exact(b) @ a2, "v_out.weight")
    with torch.no_grad():
        for got, value in zip(head(audio, vision), expected, strict=True):
            np.testing.assert_allclose(got[0].numpy(), value, atol=1e-4)


def test_without_any_connection_each_sense_stays_by_itself() -> None:
    head = made("psp")
    head.get_parameter("v2.weight").data.zero_()
    audio, vision, _ = embeddings()
    with torch.no_grad():
        got = head(audio, vision)
        mixed = head(audio, torch.roll(vision, 1, 1))
    assert all(x.isfinite().all() for x in got)
    assert torch.equal(got[0], mixed[0])


def test_pair_errors_by_hand() -> None:
    audio = torch.tensor([[[2.0, 0], [1, 0], [1, 0]], [[1, 0], [0, 1], [0, 1]]])
    vision = torch.tensor([[[3.0, 4], [0.8, 0.6], [-1, 0]], [[0, 1], [0, 2], [1, 0]]])
    event = torch.tensor([[True, True, False], [False, False, False]])
    # cosines 0.6, 0.8, -1 are shares 3/7, 4/7, 0 against 1/2, 1/2, 0; cosines 0, 1, 0 are shares against no event
    expected = torch.tensor([[1 / 196, 1 / 196, 0], [0, 1, 0]])
    torch.testing.assert_close(pair_errors(audio, vision, event), expected)


def test_the_pair_loss_has_gradients_for_both_senses() -> None:
    audio, vision = (torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    audio.requires_grad_()
    vision.requires_grad_()
    event = torch.tensor([[True, True, False, False, False], [False] * 5])
    pair_errors(audio, vision, event).mean().backward()  # type: ignore[no-untyped-call]
    for each in (audio, vision):
        assert each.grad is not None
        assert each.grad.isfinite().all()
        assert each.grad.abs().sum() > 0
