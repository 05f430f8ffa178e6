"""Valid calls of Part 5, and of what it took to the ground floor."""

from __future__ import annotations

import torch
from fuzzing import generator, normal, uniform
from torch import nn

from cl_teach import readouts
from cl_teach.core import gaussians, pseudo_labels, subclasses
from cl_teach.datasets import imperfect, structured
from cl_teach.datasets.common import ImageSet
from cl_teach.labels import bacon, conr, rcal, sbcl, supremix
from cl_teach.models import cosine, moco

Y = torch.tensor([0, 0, 1, 1, 2, 2])
TWICE = torch.tensor([0, 0, 1]).repeat(2)
SUB = torch.tensor([0, 1, 2]).repeat(2)
AGES = torch.tensor([20.0, 30.0, 40.0]).repeat(2)
GUESS = torch.tensor([20.0, 20.0, 40.0]).repeat(2)
SIZES = torch.tensor([6, 5, 2])
TRAIN = torch.arange(3).repeat_interleave(torch.tensor([8, 4, 2]))
KNOWN = torch.tensor([True, True, False])


def covs() -> torch.Tensor:
    """Three covariances ``(3, 2, 2)``."""
    roots = normal(3, 2, 2, seed=2)
    return roots @ roots.mT + 0.1 * torch.eye(2)


def images() -> ImageSet:
    """Six images of three classes."""
    return ImageSet(uniform(6, 1, 2, 2), Y, ("a", "b", "c"))


def trained() -> sbcl.SBCL:
    """After a refresh."""
    method = sbcl.SBCL(TRAIN, min_size=2)
    method.refresh(normal(14, 4), generator=generator())
    return method


def network() -> rcal.RCAL:
    """On six points."""
    return rcal.RCAL(nn.Linear(4, 3), nn.Linear(3, 3), normal(6, 4), Y)


def contrast() -> moco.MoCo:
    """A small one."""
    return moco.MoCo(nn.Linear(4, 3), nn.Linear(3, 2), dim=2, size=8)


BRANCHES = {"logits": lambda: normal(6, 3).tanh(), "labels": lambda: torch.tensor([0, 1, 0]), "labeled": lambda: KNOWN}

CALLS = {
    # core
    gaussians.local_outlier_factor: lambda: dict(z=normal(7, 3), n_neighbors=3),
    gaussians.draw_gaussians: lambda: dict(means=normal(3, 2), covs=covs(), labels=Y, generator=generator()),
    gaussians.covariance_roots: lambda: dict(covs=covs()),
    gaussians.draw_by_roots: lambda: dict(means=normal(3, 2), roots=normal(3, 2, 2), labels=Y, generator=generator()),
    moco.MoCo: lambda: dict(
        encoder=nn.Linear(4, 3), head=nn.Linear(3, 2), dim=2, size=8, momentum=0.9, temperature=0.2
    ),
    moco.MoCo.loss: lambda: (
        contrast(),
        dict(query=normal(5, 4), key=normal(5, 4, seed=1), generator=generator()),
    ),
    moco.MoCo.forward: lambda: (contrast(), dict(images=normal(5, 4))),
    moco.MoCo.after_step: lambda: (contrast(), {}),
    subclasses.size_limited_clusters: lambda: dict(z=normal(7, 3), centers=normal(3, 3, seed=1), max_size=3, updates=1),
    subclasses.fill_evenly: lambda: dict(similarity=normal(7, 3)),
    subclasses.subclass_counts: lambda: dict(class_counts=SIZES, min_size=2, clustering="size_limited"),
    subclasses.split_classes: [
        lambda: dict(
            features=normal(14, 4),
            labels=TRAIN,
            min_size=2,
            clustering="size_limited",
            updates=2,
            generator=generator(),
        ),
        lambda: dict(features=normal(14, 4), labels=TRAIN, min_size=2, clustering="even"),
    ],
    pseudo_labels.count_classes: lambda: dict(labels=Y),
    pseudo_labels.labels_where: lambda: dict(labels=torch.tensor([0, 1, 0]), labeled=KNOWN, classes=3),
    pseudo_labels.estimate_counts: lambda: dict(
        cluster_ids=TRAIN,
        labels=TRAIN,
        labeled=torch.ones(14, dtype=torch.bool),
        num_classes=3,
        num_known=3,
    ),
    pseudo_labels.sampling_rates: [
        lambda: dict(class_counts=uniform(3) + 1, labeled_classes=torch.tensor([0, 2]), alpha=0.8, beta=0.5),
        lambda: dict(class_counts=SIZES, labeled_classes=torch.tensor([0, 2])),
    ],
    pseudo_labels.select_confident: lambda: dict(
        probs=normal(6, 3).softmax(1), rates=uniform(3), generator=generator()
    ),
    # models, data sets
    cosine.CosineClassifier: lambda: dict(dim=4, num_classes=3),
    cosine.CosineClassifier.forward: lambda: (cosine.CosineClassifier(4, 3), dict(features=normal(5, 4))),
    imperfect.long_tailed: lambda: dict(data=images(), imbalance=2.0, seed=0),
    imperfect.noisy_labels: lambda: dict(labels=Y, num_classes=3, rate=0.5, seed=0),
    imperfect.noise_transition: lambda: dict(class_sizes=SIZES, eta=0.4, model="experiments"),
    imperfect.flip_labels: lambda: dict(labels=Y, eta=0.4, model="theory", seed=0),
    imperfect.polluted_moments: lambda: dict(
        means=normal(3, 2), cov=torch.eye(2), priors=torch.tensor([0.5, 0.25, 0.25]), eta=0.4
    ),
    structured.nested_blobs: lambda: dict(blobs=(2, 1), each=3, dim=2, spread=0.5, seed=0),
    structured.curve_points: lambda: dict(labels=10 * uniform(5), dim=3, nuisance=1, seed=0, generator=generator()),
    structured.turned_digits: lambda: dict(split="test", count=3, decay=10.0, largest=30, part=(0.2, 0.9), seed=0),
    structured.turn: lambda: dict(images=uniform(3, 1, 4, 4), degrees=90 * normal(3)),
    # readings
    readouts.match_clusters: lambda: dict(clusters=TRAIN, labels=TRAIN.roll(3)),
    readouts.matched_accuracy: lambda: dict(clusters=TRAIN, labels=TRAIN.roll(3)),
    readouts.mutual_information: lambda: dict(clusters=TRAIN, labels=TRAIN.roll(3)),
    readouts.by_shot: lambda: dict(values=uniform(6), counts=torch.tensor([500, 50, 5, 5, 20, 100]), few=20, many=100),
    readouts.explained_variance: lambda: dict(
        train_x=normal(6, 3), train_y=normal(6, 2), test_x=normal(5, 3), test_y=normal(5, 2, seed=3), ridge=0.01
    ),
    readouts.order_correlation: lambda: dict(features=normal(6, 3), labels=AGES),
    # bacon
    bacon.pair_weights: lambda: dict(probs=normal(3, 4).softmax(1)),
    bacon.soft_contrast: lambda: dict(
        z=normal(6, 4), weights=bacon.pair_weights(normal(3, 4).softmax(1)), temperature=0.1, reduction="mean"
    ),
    bacon.distribution_regularizer: [
        lambda: dict(logits=normal(6, 3), class_counts=uniform(3) + 1, power=1.1, temperature=0.1, form="released"),
        lambda: dict(logits=normal(6, 3), class_counts=SIZES, form="kl"),
    ],
    bacon.debiased_probabilities: lambda: dict(
        logits=normal(6, 3), class_counts=uniform(3) + 1, kappa=0.5, temperature=0.1
    ),
    bacon.self_distillation: lambda: dict(logits=normal(6, 3), student_temperature=0.1, teacher_temperature=0.04),
    bacon.BaCon: lambda: dict(
        num_classes=3,
        num_known=2,
        rho=0.35,
        mu=1.0,
        power=1.1,
        kappa=0.5,
        alpha=0.8,
        beta=0.5,
        warm_up_steps=1,
        ramp_steps=3,
    ),
    bacon.BaCon.refresh: lambda: (
        bacon.BaCon(3, 2),
        dict(
            features=normal(14, 4) + 5 * TRAIN[:, None],
            labels=TRAIN,
            labeled=TRAIN < 2,
            generator=generator(),
        ),
    ),
    bacon.BaCon.loss: lambda: (
        bacon.BaCon(3, 2),
        dict(z=normal(6, 4), **{k: v() for k, v in BRANCHES.items()}, generator=generator()),
    ),
    bacon.BaCon.forward: lambda: (
        bacon.BaCon(3, 2),
        dict(z=normal(6, 4), **{k: v() for k, v in BRANCHES.items()}, generator=generator()),
    ),
    bacon.BaCon.after_step: lambda: (bacon.BaCon(3, 2), {}),
    bacon.BaCon.classifier_loss: lambda: (bacon.BaCon(3, 2), {k: v() for k, v in BRANCHES.items()}),
    bacon.BaCon.contrastive_loss: lambda: (
        bacon.BaCon(3, 2),
        dict(z=normal(6, 4), **{k: v() for k, v in BRANCHES.items()}, warm_up=False, generator=generator()),
    ),
    # conr
    conr.disagreements: [
        lambda: dict(labels=AGES, predictions=GUESS, window=1.0),
        lambda: dict(labels=normal(6, 2), predictions=normal(6, 2, seed=1)),
    ],
    conr.conr: [
        lambda: dict(
            features=normal(6, 4),
            labels=AGES,
            predictions=GUESS,
            weights=uniform(6) + 0.5,
            temperature=0.2,
            window=1.0,
            push_scale=0.01,
            released=False,
            reduction="mean",
        ),
        lambda: dict(
            features=normal(6, 4),
            labels=torch.stack([AGES, -AGES], 1),
            predictions=torch.stack([GUESS, -GUESS], 1),
            released=True,
            reduction="none",
        ),
    ],
    conr.rarity_weights: [
        lambda: dict(labels=AGES, bins=5, power=0.5),
        lambda: dict(labels=normal(6, 2), bins=5),
    ],
    # rcal
    rcal.robust_gaussians: [
        lambda: dict(z=normal(12, 2), labels=Y.repeat(2), n_neighbors=2, lof_threshold=1.5),
        lambda: dict(z=normal(12, 2), labels=Y.repeat(2), n_neighbors=2, removed=torch.full((3,), 0.25)),
    ],
    rcal.head_classes: lambda: dict(class_sizes=SIZES, share=0.5),
    rcal.calibrate_tails: lambda: dict(
        means=normal(3, 2),
        covs=covs(),
        class_sizes=SIZES,
        heads=torch.tensor([0, 1]),
        q=2,
        gamma=0.3,
        alpha=0.001,
        weighting="uniform",
    ),
    rcal.classifier_loss: lambda: dict(
        features=normal(6, 4),
        contrastive=normal(6, 4, seed=1),
        logits=normal(6, 3),
        labels=Y,
        permutation=torch.tensor([1, 0, 3, 2, 5, 4]),
        share=0.7,
        beta=0.5,
    ),
    rcal.RCAL: lambda: dict(
        encoder=nn.Linear(4, 3),
        classifier=nn.Linear(3, 3),
        images=normal(6, 4),
        labels=Y,
        heads=torch.tensor([0]),
        n_neighbors=2,
        lof_threshold=1.5,
        removed=torch.full((3,), 0.25),
        q=1,
        gamma=0.3,
        alpha=0.001,
        weighting="uniform",
        beta=0.5,
        mixup=1.0,
        drawn_weight=1.0,
    ),
    rcal.RCAL.loss: lambda: (
        network(),
        dict(images=normal(6, 4), labels=Y, index=torch.arange(6), generator=generator()),
    ),
    rcal.RCAL.forward: lambda: (network(), dict(images=normal(6, 4))),
    # sbcl
    sbcl.class_concentration: lambda: dict(features=normal(6, 4), labels=Y, log_offset=10.0),
    sbcl.class_temperatures: [
        lambda: dict(concentration=uniform(3), subclasses=SIZES, temperature=0.1, form="exponential", clip=None),
        lambda: dict(concentration=uniform(3), subclasses=SIZES, form="linear", clip=(20.0, 80.0)),
    ],
    sbcl.subclass_terms: lambda: dict(
        z=normal(6, 4),
        labels=TWICE,
        subclasses=SUB,
        temperatures=uniform(2) + 0.1,
        temperature=0.1,
        gamma=0.25,
        base_temperature=0.07,
    ),
    sbcl.sbcl: lambda: dict(z=normal(6, 4), labels=TWICE, subclasses=SUB, temperatures=uniform(2) + 0.1, gamma=0.25),
    sbcl.scaled_sup_con: lambda: dict(
        z=normal(6, 4), labels=TWICE, temperature=0.1, variant="in", base_temperature=0.07
    ),
    sbcl.two_level_plain: lambda: dict(
        z=normal(6, 4), labels=TWICE, subclasses=SUB, temperature=0.1, gamma=0.25, base_temperature=0.07
    ),
    sbcl.draw_balanced: lambda: dict(labels=Y, count=5, generator=generator()),
    sbcl.SBCL: lambda: dict(
        labels=TRAIN,
        temperature=0.1,
        gamma=0.25,
        min_size=2,
        clustering="size_limited",
        form="linear",
        clip=(20.0, 80.0),
        queue_size=8,
        dim=4,
    ),
    sbcl.SBCL.refresh: lambda: (sbcl.SBCL(TRAIN, min_size=2), dict(features=normal(14, 4), generator=generator())),
    sbcl.SBCL.loss: [
        lambda: (
            trained(),
            dict(z1=normal(3, 4), z2=normal(3, 4, seed=1), index=torch.tensor([0, 1, 9]), generator=generator()),
        ),
        lambda: (
            sbcl.SBCL(TRAIN, queue_size=8, dim=4),
            dict(z1=normal(3, 4), z2=normal(3, 4, seed=1), index=torch.tensor([0, 1, 9])),
        ),
    ],
    sbcl.SBCL.forward: lambda: (
        trained(),
        dict(z1=normal(3, 4), z2=normal(3, 4, seed=1), index=torch.tensor([0, 1, 9]), generator=generator()),
    ),
    sbcl.SBCL.after_step: lambda: (sbcl.SBCL(TRAIN, queue_size=8, dim=4), {}),
    # supremix
    supremix.draw_shares: lambda: dict(n=4, a=2.0, b=8.0, generator=generator()),
    supremix.mixed_positives: lambda: dict(labels=AGES, window=15.0),
    supremix.supremix: lambda: dict(
        z=normal(6, 4), labels=AGES, shares=uniform(6, 6), temperature=0.3, window=15.0, reduction="mean"
    ),
}

EXEMPT = {
    pseudo_labels.check_class_counts: "a check, tested with the functions that start with it",
}
