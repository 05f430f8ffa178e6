"""Valid calls of `views`, and of the networks and toy worlds that only its methods use."""

from __future__ import annotations

from typing import Any

import torch
from fuzzing import generator, normal, uniform, whole
from torch import nn

from cl_teach.core import augmentation_graph, clusters, crop_geometry
from cl_teach.datasets import factors, painted, scenes, several_factors, textured
from cl_teach.models import MLP, apply, class_pair_gate, class_translator, scattering, subject, weights_only
from cl_teach.models import foreground as patches
from cl_teach.models import generator as generators
from cl_teach.models import maps as map_encoders
from cl_teach.views import adainf, cdvg, customcontrast, genview, hydra, mcl, pixpro, scatsimclr, sepclr

LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
PARTNERS = LABELS.roll(1)
IMAGES = uniform(6, 1, 12, 12)
COLORS = uniform(6, 3, 12, 12)
BOXES1, BOXES2 = (crop_geometry.draw_boxes(6, generator=generator(k)) for k in range(2))
BORDER = torch.arange(9) != 4
GRAPH, WEIGHTS = normal(6, 4).softmax(1), normal(6).softmax(0)
REAL = torch.arange(6) < 4
STRENGTH = adainf.Augmentation(0.2, 0.4, (0.4, 0.4, 0.2, 0.1), 0.5, 0.2)


def shake(x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """An augmentation."""
    return x + 0.1


def cells(n: int) -> torch.Tensor:
    """Some positives of maps of four cells."""
    return normal(n, 4, 4, seed=9) > 0


def pix_pro() -> pixpro.PixPro:
    """A model of small maps."""
    return pixpro.PixPro(nn.Conv2d(3, 4, 3, 4, 1), 4, dim=4, hidden=4)


def pool(channels: int, out: int = 8) -> nn.Module:
    """An encoder of images of any size."""
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def scat_sim_clr() -> scatsimclr.ScatSimCLR:
    """The method with rotations."""
    made = scattering.Scattering((12, 12))
    return scatsimclr.ScatSimCLR(made, scattering.ScatteringAdapter(made.maps, width=4, blocks=1), shake)


def foreground() -> patches.Foreground:
    """Of patches of sixteen pixels."""
    return patches.Foreground(normal(16), torch.tensor(0.1))


def gen_view() -> genview.GenView:
    """The method with patches of pixels."""
    return genview.GenView(pool(1), nn.Linear(8, 4), nn.Linear(4, 4), patches.patch_tokens, normal(16))


def make_variations() -> generators.VariationGenerator:
    """A generator."""
    return generators.VariationGenerator((1, 12, 12), dim=8, hidden=16)


def translate(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Into class 1 is darker."""
    return images / (1 + targets)[:, None, None, None]


def cdvg_model() -> cdvg.CDvG:
    """The method."""
    return cdvg.CDvG(pool(3), 8, 3, translate)


def trainer() -> class_translator.TranslatorTrainer:
    """A small one."""
    networks = (class_translator.ClassTranslator(3, 3, width=4), class_translator.ClassCritic(3, 3, width=4))
    return class_translator.TranslatorTrainer(*networks, 3)


def custom_contrast() -> customcontrast.CustomContrast:
    """The method."""
    return customcontrast.CustomContrast(nn.Linear(6, 6), subject.SubjectReader(6), subject.Denoiser(6))


def clips() -> customcontrast.Clips:
    """Of six subjects."""
    return customcontrast.Clips(*(normal(6, 3, 6, seed=k) for k in range(3)))


def tokens() -> subject.SubjectTokens:
    """Of six pictures."""
    return subject.SubjectTokens(normal(6, 6), normal(6, 6), normal(6, 4, 6), normal(2, 6, 6))


def hydra_model(form: str = "cosine") -> hydra.Hydra:
    """The method."""
    return hydra.Hydra(nn.Linear(5, 8), 8, 3, form=form)


def closed() -> mcl.Multistage:
    """Two stages of pairs."""
    method = mcl.Multistage(6, 2)
    for _ in range(2):
        method.close_stage(nn.Linear(5, 3), normal(6, 5), nn.Linear(4, 3))
    return method


def sep_clr() -> sepclr.SepCLR:
    """The method."""
    return sepclr.SepCLR(MLP([5, 8, 4]), MLP([5, 8, 3]))


def z(k: int = 0) -> torch.Tensor:
    """Embeddings."""
    return normal(6, 4, seed=k)


def maps(k: int = 0) -> torch.Tensor:
    """Feature maps."""
    return normal(6, 4, 2, 2, seed=k)


CALLS: dict[Any, Any] = {
    apply.apply_network: lambda: dict(network=nn.Linear(4, 2), shape="n d", x=z()),
    weights_only.WeightsOnly: lambda: dict(weights={"0.weight": z(), "0.bias": normal(6)}),
    apply.weight_dtype: lambda: dict(network=nn.Linear(4, 2)),
    class_pair_gate.ClassPairGate: lambda: dict(num_classes=3, width=4, embedding_dim=5, hidden=6, fuse=False),
    class_pair_gate.ClassPairGate.forward: lambda: (
        class_pair_gate.ClassPairGate(3, 4),
        dict(labels=LABELS, partners=PARTNERS),
    ),
    class_translator.ClassTranslator: lambda: dict(channels=3, num_classes=3, width=4, kernel_size=3),
    class_translator.ClassTranslator.forward: lambda: (
        class_translator.ClassTranslator(3, 3, width=4),
        dict(images=COLORS, targets=LABELS),
    ),
    class_translator.ClassCritic: lambda: dict(channels=3, num_classes=3, width=4),
    class_translator.ClassCritic.forward: lambda: (class_translator.ClassCritic(3, 3, width=4), dict(images=COLORS)),
    class_translator.critic_loss: lambda: dict(
        real=normal(6), generated=normal(5), class_logits=normal(6, 3), labels=LABELS, class_weight=2.0
    ),
    class_translator.translator_loss: lambda: dict(
        generated=normal(6),
        class_logits=normal(6, 3),
        targets=LABELS,
        reconstruction=IMAGES,
        images=IMAGES.flip(0),
        class_weight=2.0,
        reconstruction_weight=3.0,
    ),
    class_translator.TranslatorTrainer: lambda: dict(
        translator=class_translator.ClassTranslator(3, 3, width=4),
        critic=class_translator.ClassCritic(3, 3, width=4),
        num_classes=3,
        cycle=True,
        class_weight=1.0,
        reconstruction_weight=2.0,
        learning_rate=0.01,
    ),
    class_translator.TranslatorTrainer.forward: lambda: (trainer(), dict(images=COLORS, targets=LABELS)),
    class_translator.TranslatorTrainer.step: lambda: (trainer(), dict(batch=(COLORS, LABELS), generator=generator())),
    generators.noise_embeddings: lambda: dict(embeddings=z(), levels=whole(9, 6), noise=z(1), steps=10),
    generators.VariationGenerator: lambda: dict(shape=(1, 12, 12), dim=8, hidden=16, level=50),
    generators.VariationGenerator.forward: lambda: (
        make_variations(),
        dict(images=IMAGES, levels=whole(900, 6), noise=normal(6, 8)),
    ),
    generators.VariationGenerator.loss: lambda: (make_variations(), dict(images=IMAGES, generator=generator())),
    textured.textured_scenes: lambda: dict(n=3, world=1, seed=2),
    map_encoders.MapEncoder: lambda: dict(in_channels=3, channels=4, wide=True),
    map_encoders.MapEncoder.forward: lambda: (map_encoders.MapEncoder(channels=4), dict(images=COLORS)),
    scattering.gabor: lambda: dict(shape=(8, 6), sigma=0.8, angle=0.3, frequency=0.5, slant=0.5),
    scattering.morlet: lambda: dict(shape=(8, 6), sigma=0.8, angle=0.3, frequency=0.5, slant=0.5),
    scattering.periodize: lambda: dict(spectrum=normal(8, 4), octaves=1),
    scattering.Scattering: lambda: dict(image_size=(12, 12), scales=2, angles=2, dtype=torch.float32),
    scattering.Scattering.forward: lambda: (scattering.Scattering((12, 12)), dict(images=IMAGES)),
    scattering.ScatteringAdapter: lambda: dict(in_channels=5, width=4, blocks=1, pool=2),
    scattering.ScatteringAdapter.forward: lambda: (
        scattering.ScatteringAdapter(5, width=4, blocks=1),
        dict(maps=normal(6, 5, 4, 4)),
    ),
    scattering.JigsawHead: lambda: dict(feature_dim=5, permutations=4, hidden=6, dropout=0.5),
    scattering.JigsawHead.forward: lambda: (scattering.JigsawHead(5, 4), dict(features=normal(6, 9, 5))),
    subject.QueryTransformer: lambda: dict(queries=2, dim=6),
    subject.QueryTransformer.forward: lambda: (subject.QueryTransformer(2, 6), dict(tokens=normal(6, 3, 6))),
    subject.SubjectReader: lambda: dict(dim=6, layers=2, visual_tokens=3),
    subject.SubjectReader.forward: lambda: (subject.SubjectReader(6), dict(features=normal(6, 3, 6))),
    subject.Denoiser: lambda: dict(dim=6, layers=2),
    subject.Denoiser.forward: lambda: (
        subject.Denoiser(6),
        dict(noisy=normal(6, 3, 6), time=uniform(6), caption=normal(6, 2, 6), tokens=tokens()),
    ),
    subject.add_noise: lambda: dict(clean=normal(6, 3, 4), noise=normal(6, 3, 4, seed=1), time=uniform(6)),
    scenes.draw_scenes: lambda: dict(
        things=whole(9, 6), places=whole(9, 6, seed=1), sizes=1 + whole(8, 6), generator=generator()
    ),
    factors.draw_two_features: lambda: dict(
        n=6, classes=(3, 2), amplitudes=(1.5, 0.6), width=4, noise=0.05, generator=generator()
    ),
    factors.draw_factors: lambda: dict(n=6, d=5, common_dim=3, salient_dim=2, generator=generator()),
    factors.draw_subjects: lambda: dict(
        subjects=4, frames=3, dim=5, factors=2, gain=0.4, view_std=1.5, noise=0.05, generator=generator()
    ),
    factors.draw_intervals: lambda: dict(n=6, generator=generator()),
    scenes.draw_scene_pairs: lambda: dict(n=5, things=3, places=4, wrong=0.5, size=3, generator=generator()),
    several_factors.graded_factors: lambda: dict(n=5, sizes=(3, 2), amplitudes=(1.0, 0.5), world=1, seed=2),
    several_factors.crossed_classes: lambda: dict(n=5, shapes=3, colors=2, noise=0.1, world=1, seed=2),
    painted.color_by_label: lambda: dict(gray=IMAGES, colors=uniform(6, 3), noise=normal(6, 3)),
    painted.overlay_pattern: lambda: dict(images=IMAGES, patterns=IMAGES.flip(0), labels=LABELS % 2),
    # --- pixpro
    crop_geometry.cell_centers: lambda: dict(boxes=BOXES1, height=2, width=3),
    crop_geometry.positive_cells: lambda: dict(boxes1=BOXES1, boxes2=BOXES2, height=2, width=3, threshold=0.7),
    pixpro.propagate_cells: [
        lambda: dict(x=maps(), transformed=maps(1), gamma=2.0, clamp=0.0),
        lambda: dict(x=maps(), transformed=maps(1), gamma=0.5, clamp=0.1),
    ],
    pixpro.pixpro: lambda: dict(y1=maps(), y2=maps(1), k1=maps(2), k2=maps(3), positives=cells(6)),
    pixpro.pix_contrast: lambda: dict(
        x1=maps(), x2=maps(1), k1=maps(2), k2=maps(3), positives=cells(6), temperature=0.3
    ),
    crop_geometry.draw_boxes: lambda: dict(n=6, scale=(0.3, 1.0), flip=0.5, generator=generator()),
    crop_geometry.crop: lambda: dict(images=COLORS, boxes=BOXES1, height=5, width=6),
    pixpro.momentum_at: lambda: dict(step=3, total=9, start=0.9),
    pixpro.PixelPropagation: lambda: dict(channels=4, layers=1, gamma=2.0, clamp=0.0),
    pixpro.PixelPropagation.forward: lambda: (pixpro.PixelPropagation(4), dict(x=maps())),
    pixpro.PixPro: lambda: dict(
        encoder=nn.Conv2d(3, 4, 3),
        channels=4,
        dim=4,
        hidden=4,
        objective="contrast",
        threshold=0.7,
        gamma=2.0,
        temperature=0.3,
        scale=(0.3, 1.0),
        momentum=0.99,
        total_steps=9,
        augment=shake,
    ),
    pixpro.PixPro.forward: lambda: (pix_pro(), dict(images=COLORS)),
    pixpro.PixPro.loss: lambda: (pix_pro(), dict(images=COLORS, generator=generator())),
    pixpro.PixPro.compare: lambda: (
        pix_pro(),
        dict(view1=COLORS, view2=COLORS.flip(3), boxes1=BOXES1, boxes2=BOXES2),
    ),
    pixpro.PixPro.after_step: lambda: (pix_pro(), {}),
    # --- scatsimclr
    scatsimclr.rotations: lambda: dict(images=COLORS),
    scatsimclr.distant_permutations: lambda: dict(count=5, candidates=40, generator=generator()),
    scatsimclr.cut_tiles: lambda: dict(images=COLORS),
    scatsimclr.shuffle_tiles: lambda: dict(
        tiles=normal(3, 9, 1, 2, 2), permutations=scatsimclr.distant_permutations(3, generator=generator())
    ),
    scatsimclr.scatsimclr_terms: lambda: dict(
        z1=z(), z2=z(1), logits=normal(6, 3), labels=LABELS, temperature=0.5, pretext_weight=0.3
    ),
    scatsimclr.ScatSimCLR: lambda: dict(
        scattering=scattering.Scattering((12, 12)),
        adapter=scattering.ScatteringAdapter(25, width=4, blocks=1),
        augment=shake,
        out_dim=4,
        hidden=4,
        temperature=0.5,
        pretext_weight=0.3,
        warmup_steps=2,
        permutations=scatsimclr.distant_permutations(3, generator=generator()),
        dropout=0.5,
    ),
    scatsimclr.ScatSimCLR.forward: lambda: (scat_sim_clr(), dict(images=IMAGES)),
    scatsimclr.ScatSimCLR.loss: lambda: (scat_sim_clr(), dict(images=IMAGES, generator=generator())),
    scatsimclr.ScatSimCLR.after_step: lambda: (scat_sim_clr(), {}),
    # --- adainf
    adainf.nt_xent_with_ids: lambda: dict(z1=z(), z2=z(1), ids=LABELS, temperature=0.2),
    adainf.real_share: lambda: dict(n_real=5, n_generated=7, copies=2),
    adainf.copy_pairs_per_batch: lambda: dict(n_real=5, n_generated=7, copies=2, batch_size=4),
    adainf.mix_real_and_generated: lambda: dict(real=IMAGES, generated=IMAGES[:3], copies=2, ids_of_images=True),
    adainf.draw_batches: lambda: dict(n=6, batch_size=2, steps=4, generator=generator()),
    adainf.draw_view: [
        lambda: dict(images=COLORS, strength=STRENGTH, generator=generator()),
        lambda: dict(images=IMAGES, strength=STRENGTH, generator=generator()),
    ],
    adainf.AdaInf: lambda: dict(
        encoder=pool(1),
        head=nn.Linear(8, 4),
        predictor=nn.Linear(4, 4),
        strengths=(STRENGTH, STRENGTH),
        temperature=0.2,
        momentum=0.9,
    ),
    adainf.AdaInf.forward: lambda: (adainf.AdaInf(pool(1), nn.Linear(8, 4)), dict(images=IMAGES)),
    adainf.AdaInf.loss: [
        lambda: (
            adainf.AdaInf(pool(1), nn.Linear(8, 4)),
            dict(images=IMAGES, ids=torch.arange(6), generator=generator()),
        ),
        lambda: (
            adainf.AdaInf(pool(1), nn.Linear(8, 4), nn.Linear(4, 4)),
            dict(images=IMAGES, ids=torch.arange(6), generator=generator()),
        ),
    ],
    adainf.AdaInf.after_step: lambda: (adainf.AdaInf(pool(1), nn.Linear(8, 4), nn.Linear(4, 4)), {}),
    augmentation_graph.natural_weights: lambda: dict(is_real=REAL, copies=3),
    augmentation_graph.real_weights: lambda: dict(is_real=REAL),
    augmentation_graph.total_variation: lambda: dict(p=WEIGHTS, q=WEIGHTS.flip(0)),
    augmentation_graph.laplacian_eigenvalues: lambda: dict(augmentation=GRAPH, weights=WEIGHTS),
    augmentation_graph.labeling_error: lambda: dict(augmentation=GRAPH, weights=WEIGHTS, labels=LABELS),
    augmentation_graph.gaussian_augmentation: lambda: dict(points=uniform(6), nodes=uniform(4, seed=1), width=0.1),
    # --- genview
    patches.principal_direction: lambda: dict(tokens=z()),
    patches.project: lambda: dict(tokens=normal(6, 9, 4), direction=normal(4)),
    patches.fit_foreground: lambda: dict(tokens=normal(6, 9, 4), background=BORDER, share=0.35),
    patches.foreground_ratio: lambda: dict(tokens=normal(6, 9, 16), foreground=foreground()),
    genview.noise_level: lambda: dict(ratio=uniform(6), edges=(0.0, 0.5, 1.0), levels=(0, 100)),
    genview.soft_masks: lambda: dict(tokens=normal(6, 9, 4), direction=normal(4), eps=1e-7),
    genview.pool_patches: lambda: dict(tokens=normal(6, 9, 4), mask=uniform(6, 9)),
    genview.pair_quality: lambda: dict(
        tokens1=normal(6, 9, 4), tokens2=normal(6, 9, 4, seed=1), direction=normal(4), eps=1e-7
    ),
    genview.quality_weights: lambda: dict(quality=normal(6), gamma=1.0),
    genview.weighted_moco_loss: lambda: dict(
        q1=z(), q2=z(1), k1=z(2), k2=z(3), weights=uniform(6), temperature=1.0, scale=2.0
    ),
    genview.weighted_simsiam_loss: lambda: dict(p1=z(), p2=z(1), z1=z(2), z2=z(3), weights=uniform(6)),
    genview.draw_choice: lambda: dict(n=6, probability=0.5, generator=generator()),
    genview.generate_variations: lambda: dict(
        images=IMAGES,
        noise=normal(6, 8),
        generate=make_variations(),
        patches=patches.patch_tokens,
        foreground=foreground(),
    ),
    genview.insert_generated: lambda: dict(images=IMAGES, generated=IMAGES.flip(0), choice=LABELS),
    patches.patch_tokens: lambda: dict(images=IMAGES, patch=4),
    genview.GenView: lambda: dict(
        encoder=pool(1),
        projector=nn.Linear(8, 4),
        predictor=nn.Linear(4, 4),
        patches=patches.patch_tokens,
        direction=normal(16),
        host="simsiam",
        gamma=1.0,
        temperature=1.0,
        momentum=0.9,
    ),
    genview.GenView.forward: lambda: (gen_view(), dict(images=IMAGES)),
    genview.GenView.weigh: lambda: (gen_view(), dict(view1=IMAGES, view2=IMAGES.flip(0))),
    genview.GenView.loss: lambda: (gen_view(), dict(view1=IMAGES, view2=IMAGES.flip(0), generator=generator())),
    genview.GenView.after_step: lambda: (gen_view(), {}),
    # --- cdvg
    cdvg.draw_targets: lambda: dict(n=6, num_classes=3, common=True, generator=generator()),
    cdvg.translated_views: lambda: dict(images=COLORS, targets=(LABELS, PARTNERS), translator=translate),
    cdvg.cdvg_loss: lambda: dict(
        z1=z(), z2=z(1), logits1=normal(6, 3), logits2=normal(6, 3), labels=LABELS, temperature=0.5, weight=1.0
    ),
    cdvg.CDvG: lambda: dict(
        encoder=pool(3),
        feature_dim=8,
        num_classes=3,
        translator=translate,
        out_dim=4,
        temperature=0.5,
        weight=1.0,
        common_targets=True,
        augment=shake,
    ),
    cdvg.CDvG.forward: lambda: (cdvg_model(), dict(images=COLORS)),
    cdvg.CDvG.loss: lambda: (cdvg_model(), dict(images=COLORS, labels=LABELS, generator=generator())),
    cdvg.CDvG.compare: lambda: (
        cdvg_model(),
        dict(images=COLORS, labels=LABELS, targets=(LABELS, PARTNERS), generator=generator()),
    ),
    cdvg.minimal_change: lambda: dict(x=z(), weights=normal(4), bias=0.5, target_score=normal(6)),
    cdvg.bias_share: lambda: dict(weights=normal(4), signal=2),
    # --- customcontrast
    customcontrast.cscl_directions: lambda: dict(visual=z(), textual=z(1), temperature=0.07),
    customcontrast.cscl: lambda: dict(visual=z(), textual=z(1), temperature=0.07),
    customcontrast.negative_subject_weights: lambda: dict(similarity=uniform(6, 6), labels=LABELS),
    customcontrast.macl_by_layer: lambda: dict(
        layers=normal(2, 6, 4), labels=LABELS, temperature=0.2, similarity=uniform(6, 6)
    ),
    customcontrast.macl: [
        lambda: dict(layers=normal(2, 6, 4), labels=LABELS, temperature=0.2, similarity=uniform(6, 6)),
        lambda: dict(layers=normal(2, 6, 4), labels=LABELS, temperature=0.2),
    ],
    customcontrast.picture_similarity: lambda: dict(features=normal(6, 3, 4)),
    customcontrast.draw_clips: lambda: dict(frames=normal(6, 4, 3, 5), generator=generator()),
    customcontrast.CustomContrast: lambda: dict(
        image_encoder=nn.Linear(6, 6),
        reader=subject.SubjectReader(6),
        denoiser=subject.Denoiser(6),
        cscl_weight=1.0,
        macl_weight=1.0,
        semantic_temperature=0.07,
        appearance_temperature=0.2,
    ),
    customcontrast.CustomContrast.forward: lambda: (custom_contrast(), dict(pictures=normal(6, 3, 6))),
    customcontrast.CustomContrast.loss: lambda: (
        custom_contrast(),
        dict(frames=normal(6, 4, 3, 6), captions=normal(6, 2, 6), generator=generator()),
    ),
    customcontrast.CustomContrast.compare: lambda: (
        custom_contrast(),
        dict(clips=clips(), captions=normal(6, 2, 6), noise=normal(6, 3, 6), time=uniform(6)),
    ),
    # --- mcl
    mcl.combine_labels: lambda: dict(stage_labels=whole(3, 2, 6), clusters=3),
    clusters.cluster_directions: lambda: dict(features=z(), clusters=2, generator=generator()),
    mcl.mcl_nt_xent: lambda: dict(z1=z(), z2=z(1), labels=LABELS, temperature=0.2, reduction="mean"),
    mcl.mcl_clip: lambda: dict(image=z(), text=z(1), labels=LABELS, log_scale=2.0, reduction="mean"),
    mcl.group_means: lambda: dict(losses=normal(6), labels=LABELS),
    clusters.pure_batches: lambda: dict(labels=LABELS, batch_size=2, generator=generator()),
    mcl.integrate: lambda: dict(features=[z(), normal(6, 3)]),
    mcl.Stage: lambda: dict(encoder=nn.Linear(5, 3), labels=LABELS, temperature=0.2, augment=shake),
    mcl.Stage.forward: lambda: (mcl.Stage(nn.Linear(5, 3), LABELS), dict(x=normal(6, 5))),
    mcl.Stage.loss: lambda: (
        mcl.Stage(nn.Linear(5, 3), LABELS),
        dict(x=normal(6, 5), rows=torch.arange(6), generator=generator()),
    ),
    mcl.PairStage: lambda: dict(encoder=nn.Linear(5, 3), text_encoder=nn.Linear(4, 3), labels=LABELS, temperature=0.07),
    mcl.PairStage.forward: lambda: (
        mcl.PairStage(nn.Linear(5, 3), nn.Linear(4, 3), LABELS),
        dict(images=normal(6, 5), texts=z()),
    ),
    mcl.PairStage.loss: lambda: (
        mcl.PairStage(nn.Linear(5, 3), nn.Linear(4, 3), LABELS),
        dict(images=normal(6, 5), texts=z(), rows=torch.arange(6), generator=generator()),
    ),
    mcl.PairStage.after_step: lambda: (mcl.PairStage(nn.Linear(5, 3), nn.Linear(4, 3), LABELS), {}),
    mcl.Multistage: lambda: dict(
        n=6, clusters=2, make_encoder=lambda: nn.Linear(5, 3), make_text_encoder=lambda: nn.Linear(4, 3)
    ),
    mcl.Multistage.close_stage: lambda: (
        mcl.Multistage(6, 2),
        dict(encoder=nn.Linear(5, 3), data=normal(6, 5), text_encoder=nn.Linear(4, 3), generator=generator()),
    ),
    mcl.Multistage.forward: lambda: (closed(), dict(x=normal(6, 5))),
    mcl.Multistage.embed_texts: lambda: (closed(), dict(x=z())),
    # --- hydra
    hydra.draw_partners: [
        lambda: dict(labels=LABELS, num_classes=3, kind="distinct", generator=generator()),
        lambda: dict(labels=LABELS, num_classes=3, kind="arbitrary", generator=generator()),
    ],
    hydra.pair_masks: lambda: dict(labels=LABELS, partners=PARTNERS),
    hydra.gated_cosine: lambda: dict(z=z(), gate=uniform(6, 4)),
    hydra.gated_product: lambda: dict(z=z(), gate=uniform(6, 4), keys=z(1)),
    hydra.partner_contrast: lambda: dict(
        similarity=normal(6, 6), labels=LABELS, partners=PARTNERS, temperature=0.1, average="anchor"
    ),
    hydra.Hydra: lambda: dict(
        backbone=nn.Linear(5, 8),
        feature_dim=8,
        num_classes=3,
        width=4,
        hidden=4,
        embedding_dim=4,
        gate_hidden=4,
        fuse=True,
        temperature=0.1,
        kind="distinct",
        form="two_view",
        learned_scale=True,
        gating=True,
    ),
    hydra.Hydra.forward: lambda: (hydra_model(), dict(x=normal(6, 5), labels=LABELS, partners=PARTNERS)),
    hydra.Hydra.loss: [
        lambda: (hydra_model(), dict(x=normal(6, 5), labels=LABELS, generator=generator())),
        lambda: (
            hydra_model("two_view"),
            dict(x=normal(6, 5), labels=LABELS, second=normal(6, 5, seed=1), generator=generator()),
        ),
    ],
    hydra.Hydra.compare: lambda: (
        hydra_model("two_view"),
        dict(x=normal(6, 5), labels=LABELS, partners=PARTNERS, second=normal(6, 5, seed=1)),
    ),
    # --- sepclr
    sepclr.gaussian_alignment: lambda: dict(x=z(), y=z(1), temperature=0.5),
    sepclr.gaussian_uniformity: lambda: dict(x=z(), temperature=0.5),
    sepclr.joint_concentration: lambda: dict(c=z(), s=normal(6, 3), temperature=0.5),
    sepclr.pin_background: lambda: dict(s=z(), labels=LABELS % 2),
    sepclr.sepclr: lambda: dict(
        c1=z(),
        c2=z(1),
        s1=z(2),
        s2=z(3),
        labels=LABELS % 2,
        temperature=0.5,
        salient_weight=1.0,
        infoless_weight=10.0,
        joint_weight=10.0,
    ),
    sepclr.attribute_alignment: lambda: dict(s=normal(6), attribute=normal(6, seed=1), temperature=0.025),
    sepclr.SepCLR: lambda: dict(
        common=MLP([5, 8, 4]),
        salient=MLP([5, 8, 3]),
        common_projector=nn.Linear(4, 4),
        salient_projector=nn.Linear(3, 3),
        temperature=0.5,
        salient_weight=1.0,
        infoless_weight=10.0,
        joint_weight=10.0,
    ),
    sepclr.SepCLR.forward: lambda: (sep_clr(), dict(x=normal(6, 5))),
    sepclr.SepCLR.codes: lambda: (sep_clr(), dict(x=normal(6, 5))),
    sepclr.SepCLR.loss: lambda: (
        sep_clr(),
        dict(view1=normal(6, 5), view2=normal(6, 5, seed=1), labels=LABELS % 2, generator=generator()),
    ),
}

EXEMPT: dict[Any, str] = {
    weights_only.WeightsOnly.forward: "says that there is no network, whatever it gets",
}

UNCHECKED: dict[Any, str] = {}
