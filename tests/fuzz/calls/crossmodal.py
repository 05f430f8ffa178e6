"""Valid calls of Part 7, and of the models and data sets that came with it."""

from __future__ import annotations

import torch
from fuzzing import generator, normal, uniform, whole
from torch import nn

from cl_teach.crossmodal import cwcl, improved_vlp, more, one_to_k, visualness
from cl_teach.datasets import captions, text_changes
from cl_teach.datasets.patients import patients
from cl_teach.datasets.sprites import sprites
from cl_teach.models import paired_towers, signal_tower

VISUAL = torch.tensor([True, False, True, False])
SAID = ("shape", "color")


def pair(*names: str) -> dict[str, torch.Tensor]:
    """Embeddings of width three under these names."""
    return {name: normal(4, 3, seed=i) for i, name in enumerate(names)}


def views(seed: int = 0) -> improved_vlp.Views:
    """One global and two local views of embeddings."""
    return improved_vlp.Views(normal(4, 3, seed=seed), [normal(4, 3, seed=seed + 1), normal(4, 3, seed=seed + 2)])


def rocket(extra: str = "byolip") -> improved_vlp.CLIPRocket:
    """Towers that read vectors."""
    torch.manual_seed(0)
    settings = {"widths": (3, 3), "dim": 4, "hidden": 4, "label_smoothing": 0.0}
    return improved_vlp.CLIPRocket(nn.Linear(3, 3), nn.Linear(3, 3), extra=extra, **settings)


def tower() -> paired_towers.HeadedTower:
    """Reads vectors."""
    return paired_towers.HeadedTower(nn.Linear(3, 3), 3, 4, 4)


def continuous() -> cwcl.CWCL:
    """Two linear towers."""
    return cwcl.CWCL(nn.Linear(3, 4), nn.Linear(5, 4))


def languages() -> one_to_k.OneToK:
    """Two linear towers."""
    return one_to_k.OneToK(nn.Linear(3, 4), nn.Linear(5, 4))


def tip() -> visualness.TIPCLIP:
    """Images and texts are vectors."""
    return visualness.TIPCLIP(nn.Linear(3, 4), nn.Linear(5, 4), normal(3))


def medical() -> more.MoRE:
    """Vectors, and a waveform of two leads."""
    ecg = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    return more.MoRE({"report": nn.Linear(3, 4), "xray": nn.Linear(3, 4), "ecg": ecg}, 4)


def people(ecg: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Five patients."""
    return dict(report=normal(5, 3), xray=normal(5, 3, seed=1), ecg=normal(5, 2, 8) if ecg is None else ecg)


CALLS = {
    # cwcl
    cwcl.intra_modal_weights: lambda: dict(features=normal(4, 3)),
    cwcl.cwcl_terms: lambda: dict(**pair("trained", "frozen"), log_scale=2.0, weights=uniform(4, 4)),
    cwcl.cwcl: lambda: dict(**pair("trained", "frozen"), log_scale=2.0, weights=uniform(4, 4)),
    cwcl.CWCL: lambda: dict(frozen_tower=nn.Linear(3, 4), trained_tower=nn.Linear(5, 4), scale=10.0),
    cwcl.CWCL.loss: lambda: (
        continuous(),
        dict(frozen=normal(4, 3), trained=normal(4, 5), weight_features=normal(4, 2)),
    ),
    cwcl.CWCL.forward: lambda: (continuous(), dict(frozen=normal(4, 3), trained=normal(2, 5))),
    cwcl.CWCL.zero_shot: lambda: (
        continuous(),
        dict(inputs=normal(4, 3), prompts=normal(2, 5), prompts_go_to="trained"),
    ),
    cwcl.CWCL.after_step: lambda: (continuous(), {}),
    # one to k
    one_to_k.one_to_k_terms: lambda: dict(image=normal(2, 3), text=normal(6, 3), temperature=0.07, released=True),
    one_to_k.one_to_k: lambda: dict(image=normal(2, 3), text=normal(6, 3), temperature=0.07, released=True),
    one_to_k.ranks: lambda: dict(similarity=normal(4, 2, 4), direction="image_to_text"),
    one_to_k.mean_rank_variance: lambda: dict(similarity=normal(4, 2, 4), direction="image_to_text"),
    one_to_k.OneToK: lambda: dict(
        image_tower=nn.Linear(3, 4), text_tower=nn.Linear(5, 4), temperature=0.07, released=True
    ),
    one_to_k.OneToK.loss: lambda: (languages(), dict(images=normal(3, 3), texts=normal(3, 2, 5))),
    one_to_k.OneToK.forward: lambda: (languages(), dict(images=normal(3, 3), texts=normal(4, 2, 5))),
    one_to_k.OneToK.after_step: lambda: (languages(), {}),
    # visualness
    visualness.with_null: lambda: dict(image=normal(4, 3), null_image=normal(3), is_visual=VISUAL),
    visualness.tip_clip_terms: lambda: dict(
        **pair("image", "text"), null_image=normal(3), is_visual=VISUAL, log_scale=2.0
    ),
    visualness.tip_clip: lambda: dict(**pair("image", "text"), null_image=normal(3), is_visual=VISUAL, log_scale=2.0),
    visualness.loss_floor: lambda: dict(is_visual=VISUAL),
    visualness.visualness: lambda: dict(text=normal(4, 3), null_image=normal(3)),
    visualness.mine_sentences: lambda: dict(similarity=uniform(4, 3), visual_above=0.35, abstract_below=0.18),
    visualness.majority_label: lambda: dict(ratings=1 + whole(7, 4, 9), needed=5),
    visualness.macro_f1: lambda: dict(scores=normal(4), is_visual=VISUAL, threshold=0.5),
    visualness.best_threshold: lambda: dict(scores=normal(4), is_visual=VISUAL),
    visualness.draw_null_image: lambda: dict(shape=(3, 4, 4), generator=generator()),
    visualness.TIPCLIP: lambda: dict(
        image_tower=nn.Linear(3, 4), text_tower=nn.Linear(5, 4), null_image=normal(3), scale=10.0
    ),
    visualness.TIPCLIP.loss: lambda: (tip(), dict(images=normal(2, 3), texts=normal(4, 5), is_visual=VISUAL)),
    visualness.TIPCLIP.forward: lambda: (tip(), dict(images=normal(4, 3), texts=normal(4, 5), is_visual=VISUAL)),
    visualness.TIPCLIP.after_step: lambda: (tip(), {}),
    visualness.TIPCLIP.score: lambda: (tip(), dict(texts=normal(4, 5))),
    visualness.TIPCLIP.similarity: lambda: (tip(), dict(texts=normal(4, 5), images=normal(2, 3))),
    # improved vlp
    improved_vlp.directed_contrast: lambda: dict(**pair("anchor", "candidates"), log_scale=2.0, label_smoothing=0.1),
    improved_vlp.clip_rocket: lambda: dict(
        image=views(), text=views(3), log_scale=2.0, local_log_scale=1.0, label_smoothing=0.1, doubled=True
    ),
    improved_vlp.siamlip: lambda: dict(image_p=views(), text_p=views(3), image_v=views(6), text_v=views(9)),
    improved_vlp.barlip: lambda: dict(**pair("image_v", "text_v"), off_diagonal=5e-3, scale=0.025),
    improved_vlp.swalip: lambda: dict(
        image_h=views().local, text_h=views(3).local, local_log_scale=1.0, epsilon=0.05, iterations=3
    ),
    improved_vlp.CLIPRocket: lambda: dict(
        image_encoder=nn.Linear(3, 3),
        text_encoder=nn.Linear(3, 3),
        widths=(3, 3),
        dim=4,
        hidden=4,
        extra="byolip",
        label_smoothing=0.1,
        doubled=True,
        text_dropout=0.1,
        momentum=0.9,
    ),
    improved_vlp.CLIPRocket.loss: [
        lambda: (rocket(), dict(images=views(), texts=views(3))),
        lambda: (rocket("swalip"), dict(images=views(), texts=views(3))),
    ],
    improved_vlp.CLIPRocket.forward: lambda: (rocket(), dict(images=normal(4, 3), texts=normal(2, 3))),
    improved_vlp.CLIPRocket.zero_shot: lambda: (rocket(), dict(images=normal(4, 3), prompts=normal(2, 3))),
    improved_vlp.CLIPRocket.after_step: lambda: (rocket(), {}),
    paired_towers.Views.map: lambda: (views(), dict(network=nn.Linear(3, 2))),
    paired_towers.HeadedTower: lambda: dict(encoder=nn.Linear(3, 3), width=3, dim=4, hidden=4, dropout=0.1),
    paired_towers.HeadedTower.embed: lambda: (tower(), dict(inputs=normal(4, 3))),
    paired_towers.HeadedTower.forward: lambda: (tower(), dict(views=views())),
    paired_towers.PairedTowers: lambda: dict(image=tower(), text=tower()),
    paired_towers.PairedTowers.forward: lambda: (
        paired_towers.PairedTowers(tower(), tower()),
        dict(images=views(), texts=views(3)),
    ),
    text_changes.draw_text_changes: lambda: dict(n=3, length=4, generator=generator()),
    text_changes.change_texts: lambda: dict(
        texts=whole(9, 3, 4),
        synonyms=captions.class_synonyms(2, 2, 8),
        draws=text_changes.draw_text_changes(3, 4, generator=generator()),
        share=0.5,
    ),
    text_changes.remove_words: lambda: dict(
        texts=whole(9, 3, 4), removable=torch.arange(9) > 4, probability=0.5, generator=generator()
    ),
    # more
    more.more_loss: lambda: dict(**pair("report", "xray", "ecg"), temperature=0.1),
    more.draw_ecg_changes: lambda: dict(n=3, segments=4, generator=generator()),
    more.augment_ecg: lambda: dict(
        signals=normal(3, 2, 8),
        **more.draw_ecg_changes(3, generator=generator())._asdict(),
        largest_change=0.25,
    ),
    more.zero_shot_scores: lambda: dict(
        signals=normal(4, 3), prompts=normal(3, 3, seed=1), classes=torch.tensor([0, 1, 1])
    ),
    more.draw_dropped: lambda: dict(n=4, rate=0.3, generator=generator()),
    more.MoRE: lambda: dict(
        towers={"report": nn.Linear(3, 4), "xray": nn.Linear(3, 4), "ecg": nn.Linear(3, 4)},
        feature_dim=4,
        hidden=4,
        out_dim=3,
        temperature=0.1,
        augment=True,
    ),
    more.MoRE.embed: lambda: (medical(), dict(name="xray", signals=normal(5, 3))),
    more.MoRE.forward: lambda: (medical(), people()),
    more.MoRE.loss: lambda: (medical(), dict(**people(), generator=generator())),
    more.MoRE.fuse: lambda: (
        medical(),
        dict(xray=normal(5, 3), ecg=normal(5, 2, 8), dropped=torch.tensor([True] * 2 + [False] * 3)),
    ),
    signal_tower.draw_drop_mask: lambda: dict(n=2, heads=2, tokens=3, rate=0.3, generator=generator()),
    signal_tower.DropKeyAttention: lambda: dict(dim=4, heads=2),
    signal_tower.DropKeyAttention.forward: lambda: (
        signal_tower.DropKeyAttention(4, 2),
        dict(tokens=normal(2, 3, 4), dropped=signal_tower.draw_drop_mask(2, 2, 3, generator=generator())),
    ),
    signal_tower.LoRALinear: lambda: dict(layer=nn.Linear(3, 4), rank=2, alpha=2.0, dropout=0.1),
    signal_tower.LoRALinear.forward: lambda: (signal_tower.LoRALinear(nn.Linear(3, 4)), dict(x=normal(5, 3))),
    signal_tower.LoRALinear.merged: lambda: (signal_tower.LoRALinear(nn.Linear(3, 4)), {}),
    signal_tower.NormalizedHead: lambda: dict(in_dim=3, hidden=4, out_dim=2),
    signal_tower.SignalTower: lambda: dict(pieces=2, piece_dim=3, dim=4, heads=2, rate=0.3, lora=True),
    signal_tower.SignalTower.forward: lambda: (signal_tower.SignalTower(2, 3, 4), dict(signals=normal(5, 6))),
    patients: lambda: dict(n=3, noise=0.1, world=0, seed=0),
    captions.sprite_captions: lambda: dict(
        factors={name: sprites(3, size=16).factors[name] for name in SAID},
        said=SAID,
        fillers=2,
        generator=generator(),
    ),
    captions.abstract_sentences: lambda: dict(n=3, said=SAID, fillers=2, accident=0.15, generator=generator()),
    captions.class_captions: lambda: dict(
        labels=whole(4, 3), noise=2, classes=4, synonyms=2, words=20, generator=generator()
    ),
    captions.class_synonyms: lambda: dict(classes=4, synonyms=2, words=20),
    captions.as_text: lambda: dict(words=whole(20, 3, 4)),
}
