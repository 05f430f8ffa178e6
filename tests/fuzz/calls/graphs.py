"""Valid calls of the graph methods, and of the worlds and networks under them."""

from __future__ import annotations

import torch
from fuzzing import generator, normal, uniform, whole

from cl_teach.core import normalize
from cl_teach.core.interactions import draw_unseen
from cl_teach.datasets import networks
from cl_teach.datasets.interactions import community_graph, interactions
from cl_teach.datasets.interactions import item_sequences as walks
from cl_teach.graphs import clhe, cold_start, csgcl, lightgcl, mclrec, meow
from cl_teach.models import bundles, fields, graph, item_sequences, meta_paths, pair_weights

EDGES = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
COMMUNITIES = torch.tensor([0, 0, 0, 1, 1])
STRENGTH = csgcl.community_strength(EDGES, COMMUNITIES).float()
MET = torch.tensor([[True, False, True, False], [False, True, False, False], [True, True, False, False]])
VIEW = lightgcl.LowRank(*(x.contiguous() for x in lightgcl.low_rank_view(graph.normalize_interactions(MET), 2)))
TABLES = lightgcl.Sides(normal(3, 2), normal(4, 2))
BATCH = (torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([1, 3]))
ASSIGNMENTS = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 2]])
SEQUENCES, TARGETS = 1 + whole(5, 4, 3), 1 + whole(5, 4)
PRESENT = torch.tensor([[True, True, False]] * 4)
BUNDLES, PARTS = [torch.tensor([2, 1, 0]), torch.tensor([3, 4])], [torch.tensor([1]), torch.tensor([3])]
WARM = torch.tensor([True, True, False, True, True])
SOURCES = (normal(5, 3), normal(5, 2), normal(5, 4))


def clusters() -> meow.Clusters:
    """Two clusterings of four nodes."""
    prototypes = [normalize(normal(2, 3)), normalize(normal(3, 3, seed=1))]
    return meow.Clusters(ASSIGNMENTS, prototypes, [uniform(2) + 0.2, uniform(3) + 0.2])


def paths() -> list[meta_paths.MetaPath]:
    """Two paths over four targets."""
    return [
        meta_paths.MetaPath(normal(3, 2), (normal(4, 3) > 0).float()),
        meta_paths.MetaPath(normal(2, 5), (normal(4, 2, seed=1) > -1).float()),
    ]


def meta_network() -> meta_paths.MetaPathNetwork:
    """Of four targets."""
    return meta_paths.MetaPathNetwork(normal(4, 3), paths(), 4, top=2, generator=generator())


def meow_model(weights: str | torch.Tensor = "clusters") -> meow.MEOW:
    """Of four targets."""
    torch.manual_seed(0)
    return meow.MEOW(meta_network(), weights=weights, counts=(2, 3))


def csgcl_model() -> csgcl.CSGCL:
    """Of five nodes."""
    torch.manual_seed(0)
    return csgcl.CSGCL(uniform(5, 3), EDGES, COMMUNITIES, 4)


def layers() -> lightgcl.Layers:
    """Two layers."""
    return lightgcl.propagate(TABLES, graph.normalize_interactions(MET), VIEW)


def light(**settings: object) -> lightgcl.LightGCL:
    """Of three users and four items."""
    torch.manual_seed(0)
    return lightgcl.LightGCL(MET, 2, 2, **settings)


def encoder() -> item_sequences.SequenceEncoder:
    """Of five items."""
    torch.manual_seed(0)
    return item_sequences.SequenceEncoder(5, 4, 3)


def recommender() -> mclrec.MCLRec:
    """Of five items."""
    return mclrec.MCLRec(encoder(), (4, 3))


def cold() -> cold_start.ColdStart:
    """Of four users and five items."""
    torch.manual_seed(0)
    return cold_start.ColdStart(whole(3, 4, 2), whole(3, 5, 2), torch.zeros(5, dtype=torch.bool), 4)


def pair_batch() -> cold_start.PairBatch:
    """Of three pairs."""
    return cold_start.PairBatch(
        torch.tensor([0, 1, 3]),
        torch.tensor([0, 4, 2]),
        torch.tensor([1, 1, 3]),
        torch.tensor([2.0, 1.0, 1.0]),
        torch.zeros(3, 3, dtype=torch.bool),
    )


def bundler(augmentation: str = "drop") -> clhe.CLHE:
    """Of five items."""
    torch.manual_seed(0)
    return clhe.CLHE(SOURCES, WARM, 4, augmentation=augmentation)


def bundle_encoder() -> bundles.BundleEncoder:
    """Of width four."""
    torch.manual_seed(0)
    return bundles.BundleEncoder(4)


CALLS = {
    # worlds
    draw_unseen: lambda: dict(interactions=MET, users=torch.tensor([0, 2, 2]), generator=generator()),
    interactions: lambda: dict(
        users=12,
        items=8,
        groups=2,
        inside=0.5,
        outside=0.05,
        spurious=0.2,
        held_out=0.2,
        pareto=2.0,
        seed=0,
        device="cpu",
    ),
    community_graph: [
        lambda: dict(sizes=(4, 5), inside=(0.5, 0.6), outside=0.1, features=4, on=0.4, off=0.1, seed=0, device="cpu"),
        lambda: dict(sizes=(4, 5), inside=0.5),
    ],
    walks: lambda: dict(n=5, items=6, topics=2, length=3, stay=0.8, follow=0.5, taste=0.3, seed=0, device="cpu"),
    networks.paper_network: lambda: dict(
        papers=8,
        authors=6,
        subjects=4,
        classes=2,
        written_by=2,
        inside=0.8,
        features=3,
        paper_signal=0.3,
        author_signal=2.0,
        seed=0,
        device="cpu",
    ),
    networks.attributed_interactions: lambda: dict(
        users=6, items=7, fields=3, values=2, informative=1, met=2, cold=0.2, seed=0, device="cpu"
    ),
    networks.item_bundles: lambda: dict(
        items=12,
        styles=2,
        bundles=3,
        held_out=2,
        smallest=2,
        largest=3,
        features=3,
        noise=1.0,
        users=9,
        rank=4,
        cold=0.3,
        seed=0,
        device="cpu",
    ),
    # networks
    graph.gcn_matrix: lambda: dict(edges=EDGES, n=5),
    graph.scale_by_degrees: lambda: dict(adjacency=uniform(4, 4), self_loops=True),
    graph.mean_matrix: lambda: dict(incidence=uniform(4, 3)),
    graph.GCN: lambda: dict(in_dim=3, dim=4),
    graph.GCN.forward: lambda: (graph.GCN(3, 4), dict(features=normal(5, 3), edges=EDGES)),
    fields.FieldEncoder: lambda: dict(sizes=(3, 2), dim=4),
    fields.FieldEncoder.forward: lambda: (fields.FieldEncoder((3, 2), 4), dict(categories=whole(2, 4, 2))),
    item_sequences.SequenceEncoder: lambda: dict(items=5, dim=4, length=3, layers=1, dropout=0.1),
    item_sequences.SequenceEncoder.forward: lambda: (encoder(), dict(sequences=SEQUENCES)),
    meta_paths.meta_path_links: lambda: dict(incidence=(normal(4, 3) > 0).float(), top=2),
    meta_paths.MetaPathNetwork: lambda: dict(
        targets=normal(4, 3),
        paths=paths(),
        dim=4,
        top=2,
        feature_mask=0.3,
        edge_mask=0.2,
        dropout=0.2,
        generator=generator(),
    ),
    meta_paths.MetaPathNetwork.forward: lambda: (meta_network(), {}),
    meta_paths.MetaPathNetwork.coarse: lambda: (meta_network(), {}),
    meta_paths.MetaPathNetwork.fine: lambda: (meta_network(), {}),
    pair_weights.PairWeights: lambda: dict(dim=3, hidden=4, centered=True),
    pair_weights.PairWeights.forward: lambda: (
        pair_weights.PairWeights(3, 4, centered=True),
        dict(anchors=normal(4, 3), candidates=normal(4, 3, seed=1)),
    ),
    fields.FusionGate: lambda: dict(dim=4, hidden=3, temperature=1.0),
    fields.FusionGate.forward: lambda: (
        fields.FusionGate(4, 3),
        dict(fields=normal(4, 3, 4), present=PRESENT),
    ),
    fields.Fused.entropy: lambda: (fields.FusionGate(4, 3)(normal(4, 3, 4), PRESENT), {}),
    bundles.StackEncoder: lambda: dict(dim=4),
    bundles.StackEncoder.forward: lambda: (bundles.StackEncoder(4), dict(stacks=normal(5, 3, 4))),
    bundles.BundleEncoder: lambda: dict(dim=4, epsilon=1e-9),
    bundles.BundleEncoder.forward: lambda: (
        bundles.BundleEncoder(4),
        dict(items=normal(4, 3, 4), present=PRESENT),
    ),
    # CSGCL
    csgcl.detect_communities: lambda: dict(edges=EDGES, n=5, generator=generator()),
    csgcl.community_strength: lambda: dict(edges=EDGES, communities=COMMUNITIES),
    csgcl.edge_weights: lambda: dict(edges=EDGES, communities=COMMUNITIES, strength=STRENGTH),
    csgcl.edge_keep_probability: lambda: dict(weights=uniform(6), rate=0.5, threshold=0.9),
    csgcl.attribute_drop_probability: lambda: dict(
        features=uniform(5, 3), node_strength=STRENGTH[COMMUNITIES], rate=0.3, threshold=0.9
    ),
    csgcl.drop_weak_edges: lambda: dict(edges=EDGES, keep=uniform(6), undirected=True, generator=generator()),
    csgcl.drop_attributes: lambda: dict(features=normal(5, 3), drop=uniform(3), generator=generator()),
    csgcl.bonus_weight: lambda: dict(epoch=120, start=100, maximum=0.5),
    csgcl.team_up: lambda: dict(
        z1=normal(5, 3),
        z2=normal(5, 3, seed=1),
        node_strength=0.1 * normal(5),
        gamma=0.5,
        temperature=0.5,
        reduction="mean",
    ),
    csgcl.CSGCL: lambda: dict(
        features=uniform(5, 3),
        edges=EDGES,
        communities=COMMUNITIES,
        dim=4,
        edge_rates=(0.2, 0.5),
        attribute_rates=(0.1, 0.2),
        temperature=0.5,
        start=100,
        gamma=1.0,
    ),
    csgcl.CSGCL.forward: lambda: (csgcl_model(), {}),
    csgcl.CSGCL.view: lambda: (csgcl_model(), dict(number=1, generator=generator())),
    csgcl.CSGCL.loss: lambda: (csgcl_model(), dict(nodes=torch.tensor([0, 3, 1]), generator=generator())),
    csgcl.CSGCL.after_step: lambda: (csgcl_model(), {}),
    # MEOW
    meow.negative_weights: lambda: dict(assignments=ASSIGNMENTS),
    meow.weighted_info_nce: lambda: dict(
        anchors=normalize(normal(4, 3)),
        candidates=normalize(normal(4, 3, seed=1)),
        log_weights=uniform(4, 4).log(),
        temperature=0.4,
        reduction="mean",
    ),
    meow.prototype_loss: lambda: dict(anchors=normalize(normal(4, 3)), clusters=clusters(), plain=True),
    meow.concentration: [
        lambda metric=metric: dict(
            z=normalize(normal(6, 3)),
            assignment=whole(2, 6),
            centroids=normalize(normal(2, 3)),
            temperature=0.4,
            metric=metric,
        )
        for metric in ("inner product", "distance")
    ],
    meow.cluster: lambda: dict(
        z=normal(6, 3), counts=(2, 3), temperature=0.4, metric="distance", generator=generator()
    ),
    meow.MEOW: [
        lambda weights=weights: dict(
            network=meta_network(),
            weights=weights,
            counts=(2, 3),
            temperature=0.4,
            prototype_weight=1.0,
        )
        for weights in ("clusters", uniform(4, 4))
    ],
    meow.MEOW.forward: lambda: (meow_model(), {}),
    meow.MEOW.loss: [
        lambda weights=weights: (meow_model(weights), dict(nodes=torch.tensor([3, 0, 1]), generator=generator()))
        for weights in ("clusters", "learned", "centered", "plain", uniform(4, 4))
    ],
    # LightGCL
    graph.normalize_interactions: lambda: dict(interactions=MET),
    lightgcl.low_rank_view: lambda: dict(adjacency=uniform(3, 4), rank=2),
    lightgcl.drop_edges: lambda: dict(adjacency=uniform(3, 4), rate=0.5, generator=generator()),
    lightgcl.propagate: lambda: dict(
        tables=TABLES, adjacency=uniform(3, 4), view=VIEW, layers=2, slope=0.5, residual=True
    ),
    lightgcl.inner_product_contrast: lambda: dict(
        global_=normal(4, 3), local=normal(4, 3, seed=1), nodes=torch.tensor([0, 2, 2]), temperature=0.2
    ),
    lightgcl.layerwise_contrast: lambda: dict(
        layers=layers(),
        user_ids=torch.tensor([0, 2]),
        item_ids=torch.tensor([0, 2, 3]),
        temperature=0.2,
        reduction="mean",
    ),
    lightgcl.lightgcl: [
        lambda form=form: dict(layers=layers(), batch=BATCH, temperature=0.2, weight=0.2, decay=1e-3, form=form)
        for form in ("layerwise", "inner product")
    ],
    lightgcl.Layers.local_sum: lambda: (layers(), {}),
    lightgcl.Layers.global_sum: lambda: (layers(), {}),
    lightgcl.LightGCL: lambda: dict(
        interactions=MET,
        dim=2,
        rank=2,
        layers=2,
        slope=0.5,
        residual=True,
        temperature=0.2,
        weight=0.2,
        decay=1e-3,
        form="layerwise",
        edge_dropout=0.1,
    ),
    lightgcl.LightGCL.propagate: lambda: (light(), dict(graph=uniform(3, 4))),
    lightgcl.LightGCL.forward: lambda: (light(), {}),
    lightgcl.LightGCL.scores: lambda: (light(), {}),
    lightgcl.LightGCL.loss: lambda: (
        light(edge_dropout=0.2),
        dict(users=BATCH[0], met=BATCH[1], unseen=BATCH[2], generator=generator()),
    ),
    # MCLRec
    mclrec.inner_product_nt_xent: lambda: dict(
        x=normal(4, 3), y=normal(4, 3, seed=1), temperature=1.0, reduction="mean"
    ),
    mclrec.margin_regularizer: [
        lambda scope=scope: dict(x=normal(4, 3), y=normal(4, 3, seed=1), temperature=1.0, scope=scope)
        for scope in ("row", "batch")
    ],
    mclrec.mclrec_terms: lambda: dict(
        h1=normal(4, 3),
        h2=normal(4, 3, seed=1),
        z1=normal(4, 3, seed=2),
        z2=normal(4, 3, seed=3),
        temperature=1.0,
        scope="batch",
    ),
    mclrec.MCLRecTerms.augmenter_loss: lambda: (
        mclrec.mclrec_terms(*(normal(4, 3, seed=i) for i in range(4))),
        dict(weight=0.1),
    ),
    mclrec.Augmenter: lambda: dict(dim=4, hidden=(3, 2)),
    mclrec.Augmenter.forward: lambda: (mclrec.Augmenter(4, (3, 2)), dict(h=normal(5, 4))),
    item_sequences.augment_sequences: lambda: dict(sequences=SEQUENCES, generator=generator()),
    mclrec.MCLRec: lambda: dict(
        encoder=encoder(),
        hidden=(4, 3),
        temperature=1.0,
        plain_weight=0.04,
        learned_weight=0.4,
        margin_weight=0.1,
        scope="batch",
        learning_rate=1e-3,
    ),
    mclrec.MCLRec.forward: lambda: (recommender(), dict(sequences=SEQUENCES)),
    mclrec.MCLRec.scores: lambda: (recommender(), dict(sequences=SEQUENCES)),
    mclrec.MCLRec.terms: lambda: (recommender(), dict(views=[SEQUENCES, SEQUENCES.flip(1)])),
    mclrec.MCLRec.encoder_loss: lambda: (
        recommender(),
        dict(sequences=SEQUENCES, targets=TARGETS, views=[SEQUENCES, SEQUENCES.flip(1)]),
    ),
    mclrec.MCLRec.loss: lambda: (
        recommender(),
        dict(sequences=SEQUENCES, targets=TARGETS, generator=generator()),
    ),
    mclrec.MCLRec.step: lambda: (
        recommender(),
        dict(batch=(SEQUENCES, TARGETS), joint=False, generator=generator()),
    ),
    # cold start
    cold_start.hide_fields: lambda: dict(present=PRESENT, id_field=1, id_rate=0.3, rate=0.1, generator=generator()),
    cold_start.draw_batch: lambda: dict(met=MET, size=3, generator=generator()),
    cold_start.pair_contrast: lambda: dict(
        users=normal(3, 4),
        items=normal(3, 4, seed=1),
        known=torch.zeros(3, 3, dtype=torch.bool),
        temperature=0.2,
        popularity=uniform(3) + 0.1,
        reduction="mean",
    ),
    cold_start.cold_start: lambda: dict(
        users=normal(3, 4),
        items=normal(3, 4, seed=1),
        unseen=normal(3, 4, seed=2),
        known=torch.zeros(3, 3, dtype=torch.bool),
        temperature=0.2,
        weight=0.3,
        popularity=uniform(3) + 0.1,
    ),
    cold_start.ColdStart: lambda: dict(
        user_fields=whole(3, 4, 2),
        item_fields=whole(3, 5, 2),
        cold_items=torch.zeros(5, dtype=torch.bool),
        dim=4,
        cold_users=torch.zeros(4, dtype=torch.bool),
        hidden=3,
        gate=True,
        gate_temperature=1.0,
        temperature=0.2,
        weight=0.3,
        hide=(0.3, 0.05),
        correct_popularity=True,
    ),
    cold_start.ColdStart.fuse_users: lambda: (cold(), dict(users=torch.tensor([0, 2]), generator=generator())),
    cold_start.ColdStart.fuse_items: lambda: (cold(), dict(items=torch.tensor([0, 2]), generator=generator())),
    cold_start.ColdStart.forward: lambda: (
        cold(),
        dict(users=torch.tensor([0, 2]), items=torch.tensor([0, 2, 4])),
    ),
    cold_start.ColdStart.scores: lambda: (
        cold(),
        dict(users=torch.tensor([0, 2]), items=torch.tensor([0, 2, 4])),
    ),
    cold_start.ColdStart.loss: lambda: (cold(), {**pair_batch()._asdict(), "generator": generator()}),
    # CLHE
    clhe.one_way_contrast: lambda: dict(
        anchors=normal(4, 3), candidates=normal(4, 3, seed=1), temperature=0.2, reduction="mean"
    ),
    clhe.pad_bundles: lambda: dict(bundles=BUNDLES, n=5),
    clhe.part_of: lambda: dict(bundle=BUNDLES[0], ratio=0.5, fill=5, generator=generator()),
    clhe.released_part: lambda: dict(bundle=BUNDLES[0], kept=PARTS[0]),
    clhe.drop_descriptions: lambda: dict(stacks=normal(5, 3, 4), dropped=normal(5, 3) > 0),
    clhe.perturb: [
        lambda kind=kind: dict(vectors=normal(5, 3), kind=kind, amount=0.2, generator=generator())
        for kind in ("noise", "dropout")
    ],
    clhe.clhe_terms: lambda: dict(
        encoded=normal(5, 4),
        decoded=normal(5, 4, seed=1),
        views=(normal(5, 4, seed=2), normal(5, 4, seed=3)),
        bundles=BUNDLES,
        parts=PARTS,
        bundle_encoder=bundle_encoder(),
        temperatures=(0.5, 0.2),
        weights=(0.1, 2.0),
    ),
    clhe.Descriptions: lambda: dict(sources=SOURCES, warm=WARM, dim=4),
    clhe.Descriptions.forward: lambda: (clhe.Descriptions(SOURCES, WARM, 4), {}),
    clhe.CLHE: lambda: dict(
        sources=SOURCES,
        warm=WARM,
        dim=4,
        augmentation="noise",
        amount=0.2,
        ratio=0.5,
        fill=True,
        temperatures=(0.5, 0.2),
        weights=(0.1, 2.0),
    ),
    clhe.CLHE.view: [
        lambda kind=kind: (bundler(kind), dict(stacks=normal(5, 3, 4), generator=generator()))
        for kind in clhe.AUGMENTATIONS
    ],
    clhe.CLHE.loss: lambda: (bundler(), dict(bundles=BUNDLES, generator=generator())),
    clhe.CLHE.forward: lambda: (bundler(), dict(bundles=BUNDLES, dropped=normal(5, 3) > 0)),
    clhe.CLHE.scores: lambda: (bundler(), dict(given=BUNDLES, dropped=normal(5, 3) > 0)),
}

INFINITE = {clhe.CLHE.scores: "items that are given have the score minus infinity"}
