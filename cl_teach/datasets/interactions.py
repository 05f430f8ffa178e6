r"""Who clicked what, who knows whom, and what came next: three generators with planted communities.

`interactions` draws a user-item matrix. User i of group g(i) and item j of group g(j) meet with probability

.. math:: P_{ij} = \min\!\big(1,\ a_j\,[\,p_{in}\ \text{if}\ g(i) = g(j),\ \text{else}\ p_{out}\,]\big),

where :math:`a_j` is the popularity of the item (mean 1), and a fixed share of spurious meetings between groups comes on
top. `community_graph` is a planted partition (a stochastic block model) with one inner density a block and binary
attributes that lean toward the block. `item_sequences` are walks over items that mostly stay within a topic. What is
signal and what is noise is known in all three, which no real data set tells.

Everything is drawn on the CPU from one seed with a few whole-matrix operations, so that every device gets the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_entries, check_in_range, check_numbers, check_type

__all__ = ["CommunityGraph", "Interactions", "ItemSequences", "community_graph", "interactions", "item_sequences"]


class Interactions(NamedTuple):
    """A user-item matrix, taken apart.

    Attributes:
        train: ``(I, J)`` boolean, what a recommender may see: clean meetings that were not held out, and spurious ones.
        test: ``(I, J)`` boolean, the clean in-group meetings held out.
        spurious: ``(I, J)`` boolean, the part of ``train`` that was added as noise.
        user_groups: ``(I,)`` int64.
        item_groups: ``(J,)`` int64.
        popularity: ``(J,)`` float32 with mean 1, by which the chance of an item was multiplied.
    """

    train: Tensor
    test: Tensor
    spurious: Tensor
    user_groups: Tensor
    item_groups: Tensor
    popularity: Tensor


class CommunityGraph(NamedTuple):
    """An undirected graph with planted blocks.

    Attributes:
        edges: ``(2, 2m)`` int64, every edge in both directions: first all (u, v) with u < v, then all (v, u).
        features: ``(n, f)`` float32, binary attributes.
        labels: ``(n,)`` int64, the block of each node.
    """

    edges: Tensor
    features: Tensor
    labels: Tensor


class ItemSequences(NamedTuple):
    """Walks over items; id 0 is left free for padding.

    Attributes:
        sequences: ``(n, length)`` int64, ids 1 to ``items``.
        targets: ``(n,)`` int64, the item that comes next.
        topics: ``(items + 1,)`` int64, topic of each id; -1 for the padding.
    """

    sequences: Tensor
    targets: Tensor
    topics: Tensor


def interactions(
    users: int = 300,
    items: int = 200,
    groups: int = 6,
    *,
    inside: float = 0.25,
    outside: float = 0.02,
    spurious: float = 0.2,
    held_out: float = 0.0,
    pareto: float | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Interactions:
    """Draw a user-item matrix with planted communities.

    Args:
        users: number of users I, in groups of equal size (up to one).
        items: number of items J, likewise.
        groups: number of communities.
        inside: chance that a user meets an item of average popularity of the own group.
        outside: chance for an item of another group.
        spurious: how many meetings between groups are added as noise, as a share of the clean ones.
        held_out: share of the clean in-group meetings that goes into ``test``.
        pareto: shape of the Pareto distribution of popularity, greater than 1 (the smaller, the more uneven); None for
            equal popularity.
        seed: of all draws.
        device: where the tensors go.

    Returns:
        The matrix, split, with its ground truth.

    """
    check_count(users=users, items=items, groups=groups)
    check_in_range(0, 1, inside=inside, outside=outside, spurious=spurious, held_out=held_out)
    check_count(0, seed=seed)
    check_device(device)
    if min(users, items) < groups:
        raise ValueError(f"groups: expected at most as many as users and items, got {groups} of {users} and {items}")
    if pareto is not None:
        check_in_range(1, float("inf"), pareto=pareto)
        if pareto == 1:
            raise ValueError("pareto: expected a shape above 1 (the mean must exist), got 1")
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    user_groups, item_groups = torch.arange(users) % groups, torch.arange(items) % groups
    popularity = torch.ones(items, dtype=torch.float64)
    if pareto is not None:
        popularity = (1 - uniform(items)) ** (-1 / pareto)
        popularity = popularity / popularity.mean()
    same = user_groups[:, None] == item_groups[None, :]  # (I, J)
    clean = uniform(users, items) < torch.where(same, inside, outside) * popularity
    added = _pick(~same & ~clean, round(spurious * int(clean.sum())), uniform(users, items), "spurious")
    inner = clean & same
    test = _pick(inner, round(held_out * int(inner.sum())), uniform(users, items), "held_out")
    train = (clean & ~test) | added
    result = (train, test, added, user_groups, item_groups, popularity.float())
    return Interactions(*(x.to(device) for x in result))


def community_graph(
    sizes: Sequence[int] = (60, 60, 60, 60),
    inside: float | Sequence[float] = (0.2, 0.1, 0.06, 0.04),
    outside: float = 0.02,
    *,
    features: int = 48,
    on: float = 0.3,
    off: float = 0.1,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> CommunityGraph:
    """Draw a planted partition, one inner density a block, with binary attributes.

    Attribute a belongs to block ``a % len(sizes)``: its nodes have it with chance ``on``, others with ``off``.

    Args:
        sizes: nodes in each block.
        inside: chance of an edge within a block, one number or one a block.
        outside: chance of an edge between blocks.
        features: number of attributes f.
        on: chance of an attribute in its own block.
        off: chance elsewhere.
        seed: of all draws.
        device: where the tensors go.

    Returns:
        Edges in both directions, attributes and blocks; no self-loops.

    """
    check_type((list, tuple), sizes=sizes)
    if not sizes:
        raise ValueError("sizes: expected at least one block, got none")
    check_count(features=features, **{f"sizes[{i}]": s for i, s in enumerate(sizes)})
    several = inside if isinstance(inside, list | tuple) else [inside] * len(sizes)
    densities = check_numbers("inside", several)
    if len(densities) != len(sizes):
        raise ValueError(f"inside: expected one density or {len(sizes)}, one a block, got {len(densities)}")
    check_entries(0, 1, inside=densities)
    check_in_range(0, 1, outside=outside, on=on, off=off)
    check_count(0, seed=seed)
    check_device(device)
    generator = torch.Generator().manual_seed(seed)

    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes)))  # (n,)
    n = len(labels)
    low, high = torch.triu_indices(n, n, offset=1)
    chance = torch.where(labels[low] == labels[high], densities[labels[low]], outside)
    kept = torch.rand(len(low), generator=generator, dtype=torch.float64) < chance
    half = torch.stack([low[kept], high[kept]])  # (2, m)
    own = labels[:, None] == torch.arange(features)[None, :] % len(sizes)  # (n, f)
    attributes = torch.rand(n, features, generator=generator, dtype=torch.float64) < torch.where(own, on, off).double()
    result = (torch.cat([half, half.flip(0)], dim=1), attributes.float(), labels)
    return CommunityGraph(*(x.to(device) for x in result))


def item_sequences(
    n: int = 1000,
    items: int = 200,
    topics: int = 10,
    length: int = 12,
    *,
    stay: float = 0.8,
    follow: float = 0.5,
    taste: float = 0.0,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> ItemSequences:
    """Draw walks over items that mostly stay within a topic.

    At each step the walk goes to the item's fixed successor with chance ``follow``; otherwise it draws an item, of the
    user's own topic with chance ``taste``, else of the same topic with chance ``stay``, of a random topic else.
    Successors are the next id of the topic, in a ring. Without taste the last item says all there is to know; with it,
    all items of a sequence say something.

    Args:
        n: number of sequences.
        items: number of items, a multiple of ``topics``; ids 1 to ``items``.
        topics: number of topics; id i has topic (i - 1) % topics.
        length: of each sequence, without the target.
        stay: chance to stay in the topic where no successor is followed.
        follow: chance of the fixed successor.
        taste: chance to come back to the user's own topic where no successor is followed.
        seed: of all draws.
        device: where the tensors go.

    Returns:
        Sequences, the next item of each, and the topics.

    """
    check_count(n=n, items=items, topics=topics, length=length)
    check_in_range(0, 1, stay=stay, follow=follow, taste=taste)
    check_count(0, seed=seed)
    check_device(device)
    if items % topics:
        raise ValueError(f"items: expected a multiple of topics={topics}, got {items}")
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(2, n, length + 1, generator=generator, dtype=torch.float64)
    topic = torch.randint(topics, (n, length + 1), generator=generator)
    rank = torch.randint(items // topics, (n, length + 1), generator=generator)
    own = torch.randint(topics, (n, 1), generator=generator)
    at_home = torch.rand(n, length + 1, generator=generator, dtype=torch.float64) < taste
    topic = torch.where(at_home, own, topic)

    walk = [rank[:, 0] * topics + topic[:, 0]]  # ids from 0 for now
    for t in range(1, length + 1):
        last = walk[-1]
        stays = (chance[0, :, t] < stay) & ~at_home[:, t]
        drawn = rank[:, t] * topics + torch.where(stays, last % topics, topic[:, t])
        walk.append(torch.where(chance[1, :, t] < follow, (last + topics) % items, drawn))
    ids = torch.stack(walk, dim=1) + 1  # (n, length + 1)
    labels = torch.cat([torch.tensor([-1]), torch.arange(items) % topics])
    return ItemSequences(*(x.to(device) for x in (ids[:, :-1], ids[:, -1], labels)))


def _pick(allowed: Tensor, count: int, priority: Tensor, name: str) -> Tensor:
    """Mark ``count`` of the allowed entries, those of the highest priority."""
    if count > int(allowed.sum()):
        raise ValueError(f"{name}: expected at most {int(allowed.sum())} pairs to choose from, got {count} to choose")
    rows = priority.masked_fill(~allowed, -1.0).flatten().topk(count).indices
    picked = torch.zeros(allowed.numel(), dtype=torch.bool)
    picked[rows] = True
    return picked.view_as(allowed)
