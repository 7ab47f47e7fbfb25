# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
# ruff: noqa: N803 (compile-time constants are in capitals)
"""Decode attention over a paged KV cache: a split-KV kernel in Triton.

One new query token per sequence, grouped-query heads, KV cache ``[pages, PAGE, kv_heads, dim]`` as
in vLLM. The context is cut into splits, so that few long sequences fill the GPU too; a second
kernel joins the splits by their log-sum-exp.
"""

import math

import torch
import triton
import triton.language as tl

PAGE = 16
BLOCK = 64


@triton.jit
def _attend_split(
    query,
    keys,
    values,
    pages,
    partial,
    weight,
    scale,
    context,
    table_width,
    split_tokens,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    DIM: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
):
    """Softmax-weighted values of one split, for the query heads of one KV head."""
    sequence = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    splits = tl.num_programs(2)
    group = tl.arange(0, GROUP_PAD)
    dim = tl.arange(0, DIM)
    head = kv_head * GROUP + group
    row = sequence * KV_HEADS * GROUP + head
    q = tl.load(query + row[:, None] * DIM + dim[None, :], mask=group[:, None] < GROUP, other=0.0)

    start = split * split_tokens
    end = tl.minimum(start + split_tokens, context)
    most = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    result = tl.zeros([GROUP_PAD, DIM], tl.float32)
    for first in range(start, end, BLOCK_TOKENS):
        token = first + tl.arange(0, BLOCK_TOKENS)
        inside = token < end
        page = tl.load(pages + sequence * table_width + token // PAGE_TOKENS, mask=inside, other=0)
        slot = (page.to(tl.int64) * PAGE_TOKENS + token % PAGE_TOKENS) * KV_HEADS + kv_head
        k = tl.load(keys + slot[None, :] * DIM + dim[:, None], mask=inside[None, :], other=0.0)
        v = tl.load(values + slot[:, None] * DIM + dim[None, :], mask=inside[:, None], other=0.0)
        score = tl.dot(q, k) * scale
        score = tl.where(inside[None, :], score, float("-inf"))
        new_most = tl.maximum(most, tl.max(score, 1))
        share = tl.exp(score - new_most[:, None])
        fade = tl.exp(most - new_most)
        total = total * fade + tl.sum(share, 1)
        result = result * fade[:, None] + tl.dot(share.to(v.dtype), v)
        most = new_most
    where = row * splits + split
    tl.store(
        partial + where[:, None] * DIM + dim[None, :],
        result / total[:, None],
        mask=group[:, None] < GROUP,
    )
    tl.store(weight + where, most + tl.log(total), mask=group < GROUP)


@triton.jit
def _join_splits(partial, weight, output, splits, SPLITS_PAD: tl.constexpr, DIM: tl.constexpr):
    """Weighted sum of the splits of one query head."""
    row = tl.program_id(0)
    split = tl.arange(0, SPLITS_PAD)
    dim = tl.arange(0, DIM)
    inside = split < splits
    log_weight = tl.load(weight + row * splits + split, mask=inside, other=float("-inf"))
    share = tl.exp(log_weight - tl.max(log_weight, 0))
    share = share / tl.sum(share, 0)
    part = tl.load(
        partial + (row * splits + split[:, None]) * DIM + dim[None, :],
        mask=inside[:, None],
        other=0.0,
    )
    tl.store(output + row * DIM + dim, tl.sum(part * share[:, None], 0).to(output.dtype.element_ty))


class PagedDecode:
    """One layer's decode attention with all its buffers, ready to be captured in a graph."""

    def __init__(
        self,
        batch: int,
        context: int,
        heads: int,
        kv_heads: int,
        dim: int = 128,
        device: str = "cuda",
        sm_count: int = 132,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self.batch, self.context, self.heads, self.kv_heads = batch, context, heads, kv_heads
        self.dim = dim
        half = dtype
        width = -(-context // PAGE)
        self.query = torch.randn(batch, heads, dim, device=device, dtype=half)
        cache = (batch * width, PAGE, kv_heads, dim)
        self.keys = torch.randn(cache, device=device, dtype=half)
        self.values = torch.randn(cache, device=device, dtype=half)
        order = torch.randperm(batch * width, device=device, dtype=torch.int32)
        self.pages = order.view(batch, width)
        # About four waves of programs, and splits of at least 256 tokens.
        wanted = max(1, 4 * sm_count // (batch * kv_heads))
        split = max(256, -(-context // min(wanted, 64)))
        self.split_tokens = -(-split // BLOCK) * BLOCK
        self.splits = -(-context // self.split_tokens)
        self.partial = torch.empty(batch * heads * self.splits, dim, device=device)
        self.weight = torch.empty(batch * heads * self.splits, device=device)
        self.output = torch.empty_like(self.query)

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values read in one call."""
        return 2 * 2 * self.batch * self.context * self.kv_heads * self.dim

    def __call__(self) -> None:
        group = self.heads // self.kv_heads
        _attend_split[(self.batch, self.kv_heads, self.splits)](
            self.query,
            self.keys,
            self.values,
            self.pages,
            self.partial,
            self.weight,
            1.0 / math.sqrt(self.dim),
            self.context,
            self.pages.shape[1],
            self.split_tokens,
            KV_HEADS=self.kv_heads,
            GROUP=group,
            GROUP_PAD=max(16, triton.next_power_of_2(group)),
            DIM=self.dim,
            PAGE_TOKENS=PAGE,
            BLOCK_TOKENS=BLOCK,
            num_warps=4,
            num_stages=3,
        )
        _join_splits[(self.batch * self.heads,)](
            self.partial,
            self.weight,
            self.output,
            self.splits,
            SPLITS_PAD=triton.next_power_of_2(self.splits),
            DIM=self.dim,
            num_warps=2,
        )

    def error(self) -> float:
        """Largest difference from plain attention over the first sequences; computes them anew."""
        self()
        worst = 0.0
        for sequence in range(min(self.batch, 2)):
            pages = self.pages[sequence].long()
            k = self.keys[pages].reshape(-1, self.kv_heads, self.dim)[: self.context]
            v = self.values[pages].reshape(-1, self.kv_heads, self.dim)[: self.context]
            group = self.heads // self.kv_heads
            k = k.repeat_interleave(group, 1).float()
            v = v.repeat_interleave(group, 1).float()
            score = torch.einsum("hd,thd->ht", self.query[sequence].float(), k)
            want = torch.einsum("ht,thd->hd", torch.softmax(score / math.sqrt(self.dim), 1), v)
            worst = max(worst, (self.output[sequence].float() - want).abs().max().item())
        return worst
