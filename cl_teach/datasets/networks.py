r"""Three generated worlds for graphs and recommendation, each with its truth: nodes of several types, items nobody has
met yet, and items sold together.

`paper_network` has papers, authors and subjects; two papers are linked through a shared author or subject, and what the
links say about the class of a paper can be set. `attributed_interactions` has users and items with categorical fields,
of which a few decide who likes what; some items have never been met. `item_bundles` has items with content, text and a
vector from feedback, sold in bundles of one style; some items have no feedback.

Everything is drawn on the CPU from one seed, so that every device gets the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_count, check_device, check_in_range

__all__ = [
    "AttributedInteractions",
    "ItemBundles",
    "PaperNetwork",
    "attributed_interactions",
    "item_bundles",
    "paper_network",
]

# Of a signal or noise.
LARGEST = 1e6
LIKES, CLICKS = 0.4, 0.03  # chance that a user clicks an item of the preferred style, and another


class PaperNetwork(NamedTuple):
    """A graph of three types of nodes.

    Attributes:
        papers: ``(P, f)`` float32 features; weak.
        authors: ``(A, f)`` features; informative.
        subjects: ``(S, f)`` features; noise.
        writes: ``(P, A)`` float32, 1 where an author wrote a paper.
        about: ``(P, S)`` float32, 1 at the one subject of each paper.
        labels: ``(P,)`` int64, the class of each paper.
    """

    papers: Tensor
    authors: Tensor
    subjects: Tensor
    writes: Tensor
    about: Tensor
    labels: Tensor


class AttributedInteractions(NamedTuple):
    """Users and items with categorical fields, the informative ones first.

    Attributes:
        user_fields: ``(I, F)`` int64 categories.
        item_fields: ``(J, F)`` int64 categories.
        liked: ``(I, J)`` boolean, the truth: the informative fields agree.
        train: ``(I, J)`` boolean, what a recommender may see; no cold item.
        cold: ``(J,)`` boolean, items that nobody has met.
    """

    user_fields: Tensor
    item_fields: Tensor
    liked: Tensor
    train: Tensor
    cold: Tensor


class ItemBundles(NamedTuple):
    """Items with three sources of knowledge, and the bundles they are sold in.

    Attributes:
        content: ``(n, c)`` float32.
        text: ``(n, c)`` float32.
        feedback: ``(n, q)`` float32 vectors from a user-item matrix; zero for cold items.
        warm: ``(n,)`` boolean, items with feedback.
        styles: ``(n,)`` int64.
        train: bundles, each ``(size,)`` int64 ids of different items of one style.
        test: further bundles.
    """

    content: Tensor
    text: Tensor
    feedback: Tensor
    warm: Tensor
    styles: Tensor
    train: list[Tensor]
    test: list[Tensor]


def paper_network(
    papers: int = 300,
    authors: int = 150,
    subjects: int = 12,
    classes: int = 3,
    *,
    written_by: int = 2,
    inside: float = 0.8,
    features: int = 16,
    paper_signal: float = 0.3,
    author_signal: float = 2.0,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> PaperNetwork:
    """Draw papers, authors and subjects of a few classes; every node has a class, only that of papers is asked for.

    Args:
        papers: number of papers, in classes of equal size (up to one).
        authors: number of authors, likewise.
        subjects: number of subjects, likewise.
        classes: number of classes.
        written_by: authors drawn for each paper (one drawn twice counts once).
        inside: chance that a paper's author, and its subject, is drawn from its own class rather than from all.
        features: width of all features.
        paper_signal: length of the class mean in the features of papers; the noise has variance 1 a feature.
        author_signal: of authors.
        seed: of all draws.
        device: where the tensors go.

    Returns:
        Features, links and the classes of the papers.

    """
    check_count(papers=papers, authors=authors, subjects=subjects, classes=classes)
    check_count(written_by=written_by, features=features)
    check_in_range(0, 1, inside=inside)
    check_count(0, seed=seed)
    check_device(device)
    check_in_range(0, LARGEST, paper_signal=paper_signal, author_signal=author_signal)
    if min(papers, authors, subjects) < classes:
        few = min(papers, authors, subjects)
        raise ValueError(f"classes: expected at most as many as nodes of any type, {few}, got {classes}")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(papers) % classes
    means = torch.randn(classes, features, generator=generator)
    means = means / means.norm(dim=1, keepdim=True)

    def describe(count: int, signal: float) -> Tensor:
        noise = torch.randn(count, features, generator=generator)
        return signal * means[torch.arange(count) % classes] + noise

    def link(count: int, draws: int) -> Tensor:
        kind = torch.arange(count) % classes
        own = (labels[:, None] == kind[None, :]).float()  # (P, count)
        chance = inside * own / own.sum(1, keepdim=True) + (1 - inside) / count
        drawn = torch.multinomial(chance, draws, replacement=True, generator=generator)
        return torch.zeros(papers, count).scatter_(1, drawn, 1.0)

    writes, about = link(authors, written_by), link(subjects, 1)
    result = (describe(papers, paper_signal), describe(authors, author_signal), describe(subjects, 0.0))
    return PaperNetwork(*(x.to(device) for x in (*result, writes, about, labels)))


def attributed_interactions(
    users: int = 400,
    items: int = 300,
    fields: int = 6,
    values: int = 4,
    *,
    informative: int = 2,
    met: int = 3,
    cold: float = 0.15,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> AttributedInteractions:
    """Draw users and items whose liking is decided by a few fields.

    A user likes an item where all informative fields of both agree, field by field. Each user has met ``met`` liked
    items that are not cold (fewer, where there are fewer).

    Args:
        users: number of users I.
        items: number of items J.
        fields: number of fields F on either side.
        values: number of categories of each field.
        informative: how many fields, the first ones, decide; the others are noise.
        met: interactions a user.
        cold: share of the items that nobody has met.
        seed: of all draws.
        device: where the tensors go.

    Returns:
        Fields, the truth, and what is known of it.

    """
    check_count(users=users, items=items, fields=fields, values=values, informative=informative, met=met)
    check_in_range(0, 1, cold=cold)
    check_count(0, seed=seed)
    check_device(device)
    if informative > fields:
        raise ValueError(f"informative: expected at most fields={fields}, got {informative}")
    generator = torch.Generator().manual_seed(seed)
    user_fields = torch.randint(values, (users, fields), generator=generator)
    item_fields = torch.randint(values, (items, fields), generator=generator)
    is_cold = torch.zeros(items, dtype=torch.bool)
    is_cold[torch.randperm(items, generator=generator)[: round(cold * items)]] = True
    liked = (user_fields[:, None, :informative] == item_fields[None, :, :informative]).all(2)  # (I, J)
    allowed = liked & ~is_cold
    rank = torch.rand(users, items, generator=generator).masked_fill(~allowed, 2.0).argsort(1).argsort(1)
    result = (user_fields, item_fields, liked, allowed & (rank < met), is_cold)
    return AttributedInteractions(*(x.to(device) for x in result))


def item_bundles(
    items: int = 300,
    styles: int = 12,
    bundles: int = 60,
    held_out: int = 40,
    *,
    smallest: int = 4,
    largest: int = 6,
    features: int = 16,
    noise: float = 1.0,
    users: int = 200,
    rank: int = 16,
    cold: float = 0.3,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> ItemBundles:
    """Draw items of a few styles, described in three ways, and bundles within styles.

    Content and text are linear images of the style with noise. The feedback vector of an item is its row of the
    truncated singular value decomposition of a user-item matrix in which users prefer one style.

    Args:
        items: number of items n, in styles of equal size (up to one).
        styles: number of styles.
        bundles: number of bundles for training.
        held_out: number of bundles for testing, at least 0.
        smallest: items in the smallest bundles.
        largest: items in the largest.
        features: width c of content and of text.
        noise: its standard deviation a feature; style means have entries of variance 1.
        users: rows of the user-item matrix.
        rank: width q of the feedback vectors.
        cold: share of the items without feedback.
        seed: of all draws.
        device: where the tensors go.

    Returns:
        Items and bundles.

    """
    check_count(items=items, styles=styles, bundles=bundles, smallest=smallest, largest=largest)
    check_count(features=features, users=users, rank=rank)
    check_count(0, held_out=held_out, seed=seed)
    check_in_range(0, 1, cold=cold)
    check_in_range(0, LARGEST, noise=noise)
    check_device(device)
    if not smallest <= largest <= items // styles:
        raise ValueError(
            f"smallest, largest, items, styles: expected at most as many items in a bundle as a style has, "
            f"{items // styles}, got {smallest} to {largest}"
        )
    if rank > min(users, items):
        raise ValueError(f"rank, users, items: expected a rank of at most {min(users, items)}, got {rank}")
    generator = torch.Generator().manual_seed(seed)
    style = torch.arange(items) % styles
    views = []
    for _ in range(2):
        means = torch.randn(styles, features, generator=generator)
        views.append(means[style] + noise * torch.randn(items, features, generator=generator))
    taste = torch.randint(styles, (users,), generator=generator)
    chance = torch.where(taste[:, None] == style[None, :], LIKES, CLICKS)
    clicks = (torch.rand(users, items, generator=generator) < chance).double()
    _, s, vh = torch.linalg.svd(clicks, full_matrices=False)
    signs = vh[:rank].gather(1, vh[:rank].abs().argmax(1, keepdim=True)).sign()  # a factor's sign is arbitrary: fix it
    vectors = (s[:rank, None] * vh[:rank] * signs).mT.float()  # (n, q)
    warm = torch.ones(items, dtype=torch.bool)
    warm[torch.randperm(items, generator=generator)[: round(cold * items)]] = False
    sets = []
    for _ in range(bundles + held_out):
        members = (style == int(torch.randint(styles, (1,), generator=generator))).nonzero()[:, 0]
        size = int(torch.randint(smallest, largest + 1, (1,), generator=generator))
        sets.append(members[torch.randperm(len(members), generator=generator)[:size]].to(device))
    tensors = (*views, vectors * warm[:, None], warm, style)
    content, text, feedback, warm, style = (x.to(device) for x in tensors)
    return ItemBundles(content, text, feedback, warm, style, sets[:bundles], sets[bundles:])
