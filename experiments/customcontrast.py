"""Does comparing pictures of a subject keep the subject and drop the view, where redrawing keeps both?

Pictures of 64 numbers mix six of a subject with six of a view (`draw_subjects`): 200 subjects (or 24) with 20 pictures
each to train on, 48 others with as many to judge. *Named*: given one picture of each of the 48, whose is another one?
*View* and *subject*: what a linear map, fitted on the training subjects, reads from features of the others. *Order*:
rank correlation of the distances between subjects, learned and real.

*Encoders* with eight outputs. They redraw the picture that they see (*redraw*) or another one of the same subject
(*frames*, which asks nothing of the view), or they are trained by MACL: plain, weighted with the real similarity of
subjects (a perfect frozen encoder), with that of the pictures at hand (*pictures*), or with a permuted one
(*permuted*). *PCA* (eight components), *untrained* and *pixels* train nothing.

*The whole method*: reader, denoiser and frozen image encoder, a random map. Its pseudo words are judged. The denoising
loss alone, with CSCL, and with both contrasts. The denoiser's body is random where the paper has a pretrained one.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import cosine_similarity
from cl_teach.datasets import Subjects, draw_subjects
from cl_teach.models import MLP, Denoiser, SubjectReader
from cl_teach.readouts import explained_variance
from cl_teach.training import at_scale, fit, seed_everything
from cl_teach.views.customcontrast import CustomContrast, macl, picture_similarity

KNOWN, NEW, FRAMES, WIDTH, OUT = 200, 48, 20, 64, 8
BATCH, STEPS = 25, at_scale(400, 800, smoke=8)
MACHINE_STEPS = at_scale(320, 640, smoke=8)
TOKENS = 4


def world(seed: int, count: int) -> tuple[Subjects, Subjects]:
    """Subjects to train on, and others."""
    draws = torch.Generator().manual_seed(seed)
    both = draw_subjects(KNOWN + NEW, FRAMES, WIDTH, generator=draws)
    return Subjects(*(x[:count] for x in both)), Subjects(*(x[KNOWN:] for x in both))


def two_frames(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Two different pictures of every subject, ``(2, n, width)``."""
    order = torch.rand(pictures.shape[:2], generator=generator).argsort(1)[:, :2]
    return torch.stack([pictures[torch.arange(len(pictures)), order[:, k]] for k in range(2)])


def encode(seed: int, arm: str, lr: float, known: Subjects) -> nn.Module:
    """Train an encoder."""
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    encoder = MLP([WIDTH, 128, OUT], norm="none")
    if arm == "untrained":
        return encoder
    decoder = MLP([OUT, 128, WIDTH], norm="none")
    count = len(known.pictures)
    batch = min(BATCH, count)
    names = torch.randperm(count, generator=draws) if arm == "permuted" else torch.arange(count)

    def loss(pictures: Tensor, which: Tensor) -> Tensor:
        pair = two_frames(pictures, draws)  # (2, n, width)
        if arm in ("redraw", "frames"):
            return F.mse_loss(decoder(encoder(pair[0])), pair[1 if arm == "frames" else 0])
        seen = pair.flatten(0, 1)
        similarity = None
        if arm == "pictures":
            similarity = picture_similarity(seen[:, None])
        elif arm != "plain":
            similarity = picture_similarity(known.subject[names[which]].repeat(2, 1)[:, None])
        return macl(encoder(seen)[None], which.repeat(2), similarity=similarity)

    options = {"epochs": STEPS // (count // batch), "batch_size": batch, "learning_rate": lr, "seed": seed}
    data = (known.pictures, torch.arange(count))
    fit(nn.ModuleList([encoder, decoder]), loss, data, progress=False, **options)
    return encoder


def judge(known: Subjects, new: Subjects, seen: Tensor, unseen: Tensor) -> dict[str, float]:
    """What features ``(subjects, frames, d)`` of the known and of the new subjects tell."""
    reference, others = unseen[:, 0], unseen[:, 1:].flatten(0, 1)
    owner = torch.arange(NEW).repeat_interleave(FRAMES - 1)
    named = (cosine_similarity(others, reference).argmax(1) == owner).float().mean()
    rows, new_rows = seen.flatten(0, 1), unseen.flatten(0, 1)

    def read(of_known: Tensor, of_new: Tensor) -> float:
        return float(explained_variance(rows, of_known, new_rows, of_new).clamp(min=0).mean())

    subject = [x.subject[:, None].expand(-1, FRAMES, -1).flatten(0, 1) for x in (known, new)]
    pairs = torch.triu_indices(NEW, NEW, 1)
    learned, real = (cosine_similarity(x, x)[pairs[0], pairs[1]] for x in (unseen.mean(1), new.subject))
    return {
        "named": 100 * float(named),
        "view": read(known.view.flatten(0, 1), new.view.flatten(0, 1)),
        "subject": read(*subject),
        "order": float(spearmanr(learned.numpy(), real.numpy()).statistic),
    }


@torch.no_grad()
def features(arm: str, encoder: nn.Module | None, known: Subjects, new: Subjects) -> tuple[Tensor, Tensor]:
    """Of the known and the new pictures."""
    seen, unseen = known.pictures, new.pictures
    if arm == "pca":
        rows = seen.flatten(0, 1)
        basis = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:OUT].mT
        return (seen - rows.mean(0)) @ basis, (unseen - rows.mean(0)) @ basis
    return (seen, unseen) if encoder is None else (encoder(seen), encoder(unseen))


def trial(seed: int, arm: str, count: int, lr: float) -> dict[str, float]:
    """One encoder, trained on ``count`` subjects."""
    known, new = world(seed, count)
    encoder = None if arm in ("pca", "pixels") else encode(seed, arm, lr, known).eval()
    return judge(known, new, *features(arm, encoder, known, new))


def score(seed: int, arm: str, count: int, lr: float) -> float:
    """For tuning: new subjects of another world, named."""
    return trial(seed, arm, count, lr)["named"]


class Frozen(nn.Module):
    """A random map that keeps what is in a picture, but mixes it: pictures ``(B, 4, 16)`` to as many features."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(WIDTH, WIDTH)
        nn.init.orthogonal_(self.map.weight)

    def forward(self, pictures: Tensor) -> Tensor:
        """Mix all numbers of a picture."""
        return torch.tanh(self.map(pictures.flatten(1))).unflatten(1, pictures.shape[1:])


def machine(seed: int, semantic: float, appearance: float, lr: float) -> dict[str, float]:
    """The whole method; its pseudo words are judged."""
    known, new = world(seed, KNOWN)
    seed_everything(seed)
    draws, dim = torch.Generator().manual_seed(seed), WIDTH // TOKENS
    method = CustomContrast(Frozen(), SubjectReader(dim), Denoiser(dim), cscl_weight=semantic, macl_weight=appearance)
    caption = torch.randn(2, dim, generator=draws)  # the same words for all: they say nothing of the subject

    def loss(frames: Tensor) -> Tensor:
        return method.loss(frames, caption.expand(len(frames), -1, -1), generator=draws).loss

    options = {
        "epochs": MACHINE_STEPS // (KNOWN // BATCH),
        "batch_size": BATCH,
        "learning_rate": lr,
        "seed": seed,
    }
    fit(method, loss, known.pictures.unflatten(2, (TOKENS, dim)), progress=False, **options)
    method.eval()

    @torch.no_grad()
    def words(pictures: Tensor) -> Tensor:
        flat = pictures.flatten(0, 1).unflatten(1, (TOKENS, dim))
        return method(flat).layers.transpose(0, 1).flatten(1).unflatten(0, pictures.shape[:2])

    return judge(known, new, words(known.pictures), words(new.pictures))


def machine_score(seed: int, semantic: float, appearance: float, lr: float) -> float:
    """For tuning: new subjects of another world, named by their pseudo words."""
    return machine(seed, semantic, appearance, lr)["named"]


NAMED = Metric("New subjects named from one picture (chance: 2 %)", "named", "points", 3.0, "Of 98.")
VIEW = Metric("Variance of the view that a linear map reads", "view", "", 0.05, "Of 1.")
SUBJECT = Metric("Variance of the subject that a linear map reads", "subject", "", 0.05, "Of 1.")
ORDER = Metric("Rank correlation of the distances between new subjects, learned and real", "order", "", 0.03, "Of 1.")
TRAINED = {
    "redraw": "redraw the picture",
    "frames": "redraw another picture of the subject",
    "plain": "MACL, plain",
    "weighted": "MACL, weighted by real similarity",
    "pictures": "MACL, weighted by similarity of pictures",
    "permuted": "MACL, weighted by permuted similarity",
    "untrained": "untrained encoder",
    "pca": "eight principal components",
    "pixels": "the picture itself",
}
FEW = ("frames", "plain", "weighted", "pictures", "permuted")
WORDS = TRAINED | {f"{name}-24": f"{TRAINED[name]}, 24 subjects" for name in FEW}
ENCODERS = Experiment(
    "customcontrast",
    {name: {"arm": name, "count": KNOWN} for name in TRAINED}
    | {f"{name}-24": {"arm": name, "count": 24} for name in FEW},
    trial,
    [
        Claim(
            "view-lost",
            "Comparing pictures of a subject loses the view, redrawing keeps it.",
            VIEW,
            "redraw",
            "plain",
            "lower",
        ),
        Claim("subject-named", "It tells new subjects by one picture.", NAMED, "redraw", "plain"),
        Claim("subject-kept", "It keeps what makes a subject.", SUBJECT, "redraw", "plain"),
        Claim(
            "other-frame",
            "Redrawing another picture of the subject is not enough.",
            NAMED,
            "frames",
            "plain",
            origin="ours",
        ),
        Claim("other-frame-view", "It already loses the view.", VIEW, "redraw", "frames", "lower", "ours"),
        Claim("order", "Weights by real similarity keep the distances between subjects.", ORDER, "plain", "weighted"),
        Claim("order-pictures", "So do weights by the similarity of pictures.", ORDER, "plain", "pictures"),
        Claim(
            "order-permuted",
            "It is the similarity, not the mere weighting.",
            ORDER,
            "permuted",
            "weighted",
            origin="ours",
        ),
        Claim(
            "order-frames",
            "Redrawing another picture keeps them less well.",
            ORDER,
            "frames",
            "weighted",
            origin="ours",
        ),
        Claim("weights-named", "The weights cost no naming.", NAMED, "plain", "weighted", origin="ours"),
        Claim("order-24", "With 24 subjects as well.", ORDER, "plain-24", "weighted-24"),
        Claim(
            "order-permuted-24",
            "And there too it is the similarity.",
            ORDER,
            "permuted-24",
            "weighted-24",
            origin="ours",
        ),
        Claim(
            "other-frame-24",
            "With 24 subjects redrawing another picture is not enough.",
            NAMED,
            "frames-24",
            "plain-24",
            origin="ours",
        ),
        Claim("pixels", "The picture itself names fewer subjects.", NAMED, "pixels", "plain", origin="ours"),
    ],
    WORDS,
    f"{KNOWN} subjects of {FRAMES} pictures; MLP 64-128-8, {STEPS} steps of {BATCH} subjects with two pictures each, "
    "temperature 0.2, learning rate tuned; judged on 48 other subjects.",
    seeds=range(5),
    tuning=Tuning(
        {"lr": (5e-4, 2e-3, 8e-3)},
        score,
        like=dict.fromkeys(
            (
                "weighted",
                "pictures",
                "permuted",
                *(f"{name}-24" for name in FEW if name != "frames"),
            ),
            "plain",
        )
        | {"frames-24": "frames"}
        | dict.fromkeys(("untrained", "pca", "pixels"), "redraw"),
        widen=0,
    ),
)
MACHINE = Experiment(
    "customcontrast",
    {
        "denoise": {"semantic": 0.0, "appearance": 0.0},
        "cscl": {"semantic": 1.0, "appearance": 0.0},
        "full": {"semantic": 1.0, "appearance": 1.0},
    },
    machine,
    [
        Claim(
            "words",
            "Pseudo words that were contrasted as well name more subjects than those of denoising alone.",
            NAMED,
            "denoise",
            "full",
            headline=True,
        ),
        Claim("words-view", "And hold less of the view.", VIEW, "denoise", "full", "lower"),
        Claim("words-cscl", "CSCL alone leaves the view in them.", VIEW, "full", "cscl", origin="ours"),
        Claim("words-cscl-named", "CSCL alone names fewer.", NAMED, "full", "cscl", "lower", "ours"),
    ],
    {"denoise": "denoising alone", "cscl": "denoising and CSCL", "full": "CustomContrast"},
    f"The same world; frozen random image encoder, denoiser with a random frozen body, {MACHINE_STEPS} steps of "
    f"{BATCH} subjects, learning rate tuned; judged by the two pseudo words of new pictures.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"lr": (5e-4, 2e-3, 8e-3)}, machine_score, like={"cscl": "full"}, widen=0),
    runs="customcontrast-machine",
)
EXPERIMENTS = (ENCODERS, MACHINE)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
