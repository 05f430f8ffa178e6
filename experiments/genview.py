"""Do weights from foreground and background find the good pairs, do they help, and does the noise follow the subject?

*Pairs.* A picture of a thing in a place (`draw_scenes`) and one variation of it, made once before training: the same
thing in another place, or, in a known share of the pairs, the wrong thing. MoCo v3 trains a small network on the pairs.
Arms: gamma 0 (the host's loss), 1 (the paper's) and 5; *turned*, gamma 1 with the direction of the foreground
reversed; *clean*, only the right pairs (a bound, since it takes what the method has to guess); *fresh*, a new variation
at every step, with gamma 0 and 1; *noise*, no generator, the second view is the first with pixel noise; *pixels* and
*untrained*, nothing trained. Two worlds: *small* has 300 pairs of six things, 40 % wrong; *hard* has 1,000 pairs of
thirty things, 60 % wrong. Features are judged by a linear probe for the thing on new scenes.

*Noise.* An autoencoder that was trained on scenes of all sizes of subject makes the variations (`VariationGenerator`).
Either all get one level of noise, or the level follows the share of foreground, as in the paper. A variation kept its
thing if the foreground patches are nearest to the right prototype. The fixed level is chosen so that variations differ
from their originals as much as with adaptive levels. (A first version with six things kept every one of them at all
levels and could tell nothing; with a hundred things half were lost in the mere reconstruction.)

Nothing is tuned; the settings come from trial runs on other seeds.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor, nn

from cl_teach.datasets import ScenePairs, draw_scene_pairs, draw_scenes
from cl_teach.evaluation import embed, linear_probe
from cl_teach.models import MLP, VariationGenerator
from cl_teach.models.foreground import fit_foreground, foreground_ratio, patch_tokens
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.genview import GenView, noise_level, pair_quality

WORLDS = {"small": {"n": 300, "things": 6, "wrong": 0.4}, "hard": {"n": 1000, "things": 30, "wrong": 0.6}}
BATCH, STEPS = 100, at_scale(300, 600, smoke=6)
NOISE = 0.3  # of the second view where there is no generator
BORDER = torch.arange(9) != 4  # patches that are mostly background
LEVELS = torch.arange(0, 501, 25)


def pairs_of(world: str, seed: int, wrong: float | None = None, n: int | None = None) -> ScenePairs:
    """Pairs of one of the worlds."""
    given = WORLDS[world]
    count, share = n or int(given["n"]), given["wrong"] if wrong is None else wrong
    generator = torch.Generator().manual_seed(seed)
    return draw_scene_pairs(count, int(given["things"]), wrong=float(share), generator=generator)


def method(direction: Tensor, gamma: float) -> GenView:
    """MoCo v3 with weights."""
    encoder = nn.Sequential(nn.Flatten(), MLP([144, 64, 32], norm="none"))
    heads = MLP([32, 32], norm="none"), MLP([32, 32, 32], norm="none")
    return GenView(encoder, *heads, patch_tokens, direction, gamma=gamma, temperature=0.2, momentum=0.9)


def train(world: str, arm: str, gamma: float, seed: int) -> tuple[nn.Module, dict[str, float]]:
    """Train one arm; also how well quality tells right from wrong pairs."""
    seed_everything(seed)
    draws, data = torch.Generator().manual_seed(seed), pairs_of(world, seed)
    direction = fit_foreground(patch_tokens(data.first), BORDER).direction
    quality = pair_quality(patch_tokens(data.first), patch_tokens(data.second), direction).quality
    above = quality[~data.wrong][:, None] - quality[data.wrong]
    found = {"auc": float((above > 0).float().mean())}
    network = method(-direction if arm == "turned" else direction, gamma)
    if arm == "untrained":
        return network, found
    rows = (~data.wrong).nonzero()[:, 0] if arm == "clean" else torch.arange(len(data.wrong))
    places = torch.full((len(rows),), 4)

    def loss(first: Tensor, second: Tensor, things: Tensor) -> Tensor:
        if arm == "noise":
            second = first + NOISE * torch.randn(first.shape, generator=draws)
        if arm == "fresh":
            n, known = len(things), int(WORLDS[world]["things"])
            wrong = torch.rand(n, generator=draws) < float(WORLDS[world]["wrong"])
            other = (things + torch.randint(1, known, (n,), generator=draws)) % known
            shown = torch.where(wrong, other, things)
            second = draw_scenes(shown, torch.randint(20, (n,), generator=draws), places[:n], generator=draws).images
        return network.loss(first, second).loss

    data_of = (data.first[rows], data.second[rows], data.things[rows])
    options = {"epochs": max(1, STEPS * BATCH // len(rows)), "batch_size": BATCH, "learning_rate": 2e-3, "seed": seed}
    fit(network, loss, data_of, progress=False, after_step=network.after_step, **options)
    return network, found


def trial(seed: int, world: str, arm: str, gamma: float) -> dict[str, float]:
    """Train one arm, and probe for the thing on scenes nobody has seen."""
    network, found = train(world, arm, gamma, seed)
    known = pairs_of(world, seed + 1000, 0.0, at_scale(800, 800, smoke=200))
    unknown = pairs_of(world, seed + 2000, 0.0, at_scale(1000, 1000, smoke=100))
    network.eval()
    if arm == "pixels":
        x, y = known.first.flatten(1), unknown.first.flatten(1)
    else:
        x, y = embed(network, known.first), embed(network, unknown.first)
    return found | {"probe": 100 * linear_probe(x, known.things, y, unknown.things, max_iter=at_scale(200, 300))}


def levels(seed: int, arm: str) -> dict[str, float]:
    """Variations with adaptive levels, and with the fixed level that makes them as different."""
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    n, things, places = 1200, 30, 30
    thing, size = torch.randint(things, (n,), generator=draws), torch.randint(1, 9, (n,), generator=draws)
    scenes = draw_scenes(thing, torch.randint(places, (n,), generator=draws), size, generator=draws)
    maker = VariationGenerator((1, 12, 12), dim=24, hidden=256)
    options = {"epochs": at_scale(40, 80, smoke=1), "batch_size": 120, "learning_rate": 2e-3, "seed": seed}
    fit(maker, lambda x: maker.loss(x, generator=draws), scenes.images, progress=False, **options)
    maker.eval()
    noise = torch.randn(n, 24, generator=draws)
    clean = draw_scenes(torch.arange(things), torch.zeros(things, dtype=torch.long), torch.full((things,), 8)).images
    prototypes = patch_tokens(clean)[:, 4]  # the center is foreground
    tokens = patch_tokens(scenes.images)
    share = foreground_ratio(tokens, fit_foreground(tokens, BORDER))

    @torch.no_grad()
    def made(level: Tensor) -> tuple[float, float]:
        images = maker(scenes.images, level, noise)
        front = scenes.foreground[..., None]
        seen = (patch_tokens(images) * front).sum(1) / front.sum(1)
        named = torch.cdist(seen, prototypes).argmin(1)
        return float((images - scenes.images).square().mean()), 100 * float((named == thing).float().mean())

    different, kept = made(noise_level(share))
    fixed = torch.tensor([made(torch.full((n,), int(level))) for level in LEVELS])  # (levels, 2)
    above = int((fixed[:, 0] >= different).nonzero()[0]) if (fixed[:, 0] >= different).any() else len(LEVELS) - 1
    below = max(above - 1, 0)
    gap = float(fixed[above, 0] - fixed[below, 0])
    part = (different - float(fixed[below, 0])) / gap if gap > 0 else 0.0
    matched = float(fixed[below, 1] + part * (fixed[above, 1] - fixed[below, 1]))
    own = float(LEVELS[below] + part * (LEVELS[above] - LEVELS[below]))
    return {
        "kept": kept,
        "kept_fixed": matched,
        "kept_clean": float(fixed[0, 1]),
        "difference": different,
        "level": own,
    }


def arm(world: str, name: str, gamma: float) -> dict[str, str | float]:
    """Settings of an arm."""
    return {"world": world, "arm": name, "gamma": gamma}


PROBE = Metric("Accuracy of a linear probe for the thing", "probe", "points")
KEPT = Metric("Share of variations that kept their thing", "kept", "points", 2.0, "One variation in fifty.")
WORDS = {
    "plain": "uniform weights",
    "weighted": "GenView, gamma 1",
    "strong": "GenView, gamma 5",
    "turned": "weights of the turned direction",
    "clean": "right pairs only",
    "noise": "pixel noise, no generator",
    "fresh-plain": "fresh variations, uniform weights",
    "fresh-weighted": "fresh variations, gamma 1",
    "untrained": "untrained network",
    "pixels": "pixels",
}
SETTINGS = {
    "plain": ("fixed", 0.0),
    "weighted": ("fixed", 1.0),
    "strong": ("fixed", 5.0),
    "turned": ("turned", 1.0),
    "clean": ("clean", 0.0),
    "noise": ("noise", 0.0),
    "fresh-plain": ("fresh", 0.0),
    "fresh-weighted": ("fresh", 1.0),
    "untrained": ("untrained", 0.0),
    "pixels": ("pixels", 0.0),
}
NOTE = (
    f"Scenes of 9 patches; MLP 144-64-32, MoCo v3 at temperature 0.2, batches of {BATCH}, {STEPS} steps; 800 labeled "
    "scenes for the probe, 1,000 to test on; nothing tuned."
)
SMALL = Experiment(
    "genview",
    {name: arm("small", *given) for name, given in SETTINGS.items()},
    trial,
    [
        Claim("weights", "Weights by quality give better features.", PROBE, "plain", "weighted", headline=True),
        Claim("gamma-5", "Stronger weights give more.", PROBE, "weighted", "strong", origin="ours"),
        Claim("turned", "The wrong sign of the direction harms.", PROBE, "plain", "turned", "lower", "ours"),
        Claim(
            "bound",
            "Leaving all wrong pairs out gives still more.",
            PROBE,
            "strong",
            "clean",
            origin="ours",
            note="Right pairs alone fill one batch an epoch: about 170 steps.",
        ),
        Claim(
            "fresh", "Weights help with fresh variations too.", PROBE, "fresh-plain", "fresh-weighted", origin="ours"
        ),
        Claim("freshness", "Fresh variations beat fixed ones.", PROBE, "plain", "fresh-plain", origin="ours"),
        Claim("generator", "Variations, some wrong, beat pixel noise.", PROBE, "noise", "plain"),
        Claim("pixels", "The weighted features beat the pixels.", PROBE, "pixels", "weighted", origin="ours"),
    ],
    WORDS,
    f"{NOTE} 300 pairs, six things, 40 % of the variations wrong.",
    seeds=range(20),
    looks=LOOKS,
)
HARD = Experiment(
    "genview",
    {f"hard-{name}": arm("hard", *SETTINGS[name]) for name in ("plain", "weighted", "strong", "pixels")},
    trial,
    [
        Claim("weights-hard", "The same with more things and more wrong pairs.", PROBE, "hard-plain", "hard-weighted"),
        Claim("gamma-5-hard", "And stronger weights give more.", PROBE, "hard-weighted", "hard-strong", origin="ours"),
        Claim("pixels-hard", "And the features beat the pixels.", PROBE, "hard-pixels", "hard-strong", origin="ours"),
    ],
    {f"hard-{name}": f"{word}, hard world" for name, word in WORDS.items()},
    f"{NOTE} 1,000 pairs, thirty things, 60 % of the variations wrong.",
    runs="genview-hard",
)
NOISES = Experiment(
    "genview",
    {"adaptive": {"arm": "adaptive"}},
    levels,
    [
        Claim(
            "adaptive-noise",
            "At equal difference from the original, noise that follows the subject keeps more things.",
            KEPT,
            "adaptive:kept_fixed",
            "adaptive",
        )
    ],
    {"adaptive": "level by foreground", "adaptive:kept_fixed": "one level for all, as different"},
    "1,200 scenes of thirty things, subject of one to eight of nine patches; autoencoder with 24 numbers, 400 steps. "
    "Difference: mean squared pixel difference from the original; the fixed level is interpolated to the same.",
    seeds=range(10),
    runs="genview-levels",
)
EXPERIMENTS = (SMALL, HARD, NOISES)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
