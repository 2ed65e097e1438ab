"""Attention over stretches computes what one attention a stretch computes, and so do the vision tower's layers."""

from __future__ import annotations

import itertools

import pytest

from dfkeval.models import attention
from dfkeval.models.loader import Loaded

torch = pytest.importorskip("torch")

LENGTHS = [([3], [3]), ([1, 4, 2], [1, 4, 2]), ([2, 1, 5], [6, 4, 5]), ([1, 1], [9, 1])]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_a_stretch_attends_to_itself_alone(
    lengths: tuple[list[int], list[int]], heads: int, kv_heads: int, causal: bool
) -> None:
    """Against one attention over everything with a mask, written out in fp64."""
    torch.manual_seed(0)
    rows, columns = (sum(each) for each in lengths)
    query = torch.randn(rows, heads, 8)
    key, value = (torch.randn(columns, kv_heads, 8) for _ in range(2))
    borders = tuple(attention.borders_of(each) for each in lengths)
    got = attention.attend(query, key, value, borders, lengths, causal=causal)
    seen = torch.zeros(rows, columns, dtype=torch.bool)
    for (row, end), (column, last) in zip(
        *(itertools.pairwise(each.tolist()) for each in borders), strict=True
    ):
        seen[row:end, column:last] = True
        if causal:
            seen[row:end, column:last] = torch.ones(end - row, last - column).tril(
                last - column - (end - row)
            )
    key, value = (each.repeat_interleave(heads // kv_heads, 1).double() for each in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.double(), key) / 8**0.5
    shares = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    assert torch.allclose(got.double(), torch.einsum("hqk,khd->qhd", shares, value), atol=1e-5)


@pytest.mark.parametrize("lengths", [[16], [8, 24, 4]])
def test_the_towers_layers_compute_what_the_librarys_compute(tiny: Loaded, lengths: list[int]) -> None:
    tower = tiny.model.model.visual
    layer = next(each for each in tower.modules() if type(each).__name__.endswith("VisionAttention"))
    torch.manual_seed(0)
    states, angles = torch.randn(sum(lengths), layer.dim), torch.randn(sum(lengths), layer.head_dim)
    given = {"cu_seqlens": attention.borders_of(lengths), "position_embeddings": (angles.cos(), angles.sin())}
    with torch.inference_mode():
        wanted = layer(states, **given)
        got = attention.together(layer, lengths)(layer, states, **given)
    assert torch.allclose(got, wanted, atol=1e-6)


def test_layers_on_a_cpu_keep_their_own_attention(tiny: Loaded) -> None:
    tower = tiny.model.model.visual
    with attention.pictures_together(tower, [4]):
        assert all("forward" not in vars(each) for each in tower.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_layers_have_their_own_forward_call_again_also_one_that_training_gave_them(fails: bool) -> None:
    trained, plain = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    trained.forward = own = lambda x: x + 1  # type: ignore[method-assign]
    try:
        with attention.replaced([trained, plain], lambda layer, x: x * 0):
            assert float(trained(torch.ones(2)).sum() + plain(torch.ones(2)).sum()) == 0
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert trained.forward is own and "forward" not in vars(plain)


def test_cudnn_is_left_out_and_nothing_else() -> None:
    flags = torch.backends.cuda
    before = flags.cudnn_sdp_enabled(), flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled()
    try:
        attention.leave_out_cudnn()
        assert (flags.cudnn_sdp_enabled(), flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled()) == (
            False, *before[1:]
        )  # fmt: skip
    finally:
        flags.enable_cudnn_sdp(before[0])


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [False, True])
def test_flash_attention_sees_the_same_stretches(causal: bool) -> None:
    lengths = [5, 1, 130, 64], [905, 901, 130, 1000]
    borders = tuple(attention.borders_of(each).cuda() for each in lengths)
    made = {"device": "cuda", "dtype": torch.bfloat16}
    query = torch.randn(sum(lengths[0]), 8, 256, **made)
    key, value = (torch.randn(sum(lengths[1]), 2, 256, **made) for _ in range(2))
    got = attention.attend(query, key, value, borders, lengths, causal=causal).float()
    wanted = attention.attend(query.float(), key.float(), value.float(), borders, lengths, causal=causal)
    assert (got - wanted).norm() < 1e-2 * wanted.norm()
