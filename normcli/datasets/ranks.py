"""The parts of all ranks of torch.distributed as one, the same on every rank: what SyncBN does, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from normcli.datasets.resume import packed, unpacked
from normcli.datasets.shards import Part
from normcli.datasets.tree import Tree
from normcli.errors import UnavailableError, with_torch


def merged(part: Part) -> Part:
    """What all ranks hold, merged in the order of the ranks; every rank must call it, and gets the same bits."""
    torch = with_torch("torch", "distributed statistics need torch, which is not installed")
    ranks = torch.distributed
    if not ranks.is_available() or not ranks.is_initialized():
        raise UnavailableError(
            "torch.distributed is not initialized here",
            hint="call torch.distributed.init_process_group first, or use torchrun",
        )
    device = "cuda" if ranks.get_backend() == "nccl" else "cpu"
    data = np.frombuffer(packed(part), np.uint8).copy()
    world = ranks.get_world_size()
    lengths = _gathered(torch, torch.tensor([len(data)], dtype=torch.int64, device=device), world)
    sizes = [int(length[0]) for length in lengths]
    sent = torch.zeros(max(sizes), dtype=torch.uint8, device=device)
    sent[: len(data)] = torch.from_numpy(data).to(device)
    tree = Tree(world)
    for rank, (found, size) in enumerate(zip(_gathered(torch, sent, world), sizes, strict=True)):
        tree.put(rank, unpacked(found[:size].cpu().numpy().tobytes()))
    return tree.whole()


def _gathered(torch: Any, sent: Any, world: int) -> list[Any]:
    found = [torch.empty_like(sent) for _ in range(world)]
    torch.distributed.all_gather(found, sent)
    return found
