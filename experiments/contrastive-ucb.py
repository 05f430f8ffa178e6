"""Does a bonus from contrastive features open a lock that greedy planning never opens, and do counts do as well?

*The lock*: five secret actions among four in a row pay 1; a mistake leads to bad states, which pay 0.02 a step. Eight
good and eight bad states look different and mean the same, and one sees each of them in parts: a lamp, and the binary
digits of its copy. An agent plans 20 times; between two plans it makes 40 episodes.

Arms: the bonus of contrastive features that share what they learn over the parts (*shared*), the same without the
bonus, features of free tables, parts that were dealt out to the states at random (*scrambled*: as many shared numbers,
but the wrong ones), the same features fitted by likelihood instead of contrast, and two agents without features: one
counts states and actions, the other is told which states mean the same and counts these. The size of the bonus is tuned
for every agent that has one, on locks of its own. After the tuning one more was added: counts without any bonus.

*Many copies*: the same lock with 64 good and 64 bad states, where counting meets nearly every state for the first time.

*Recovery*: how far is the model from the truth after n points of a random process of rank 2? Contrast, likelihood on
the same features, and plain frequencies.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor
from torch.nn import functional as F

from cl_teach.core.planning import plan
from cl_teach.datasets import Decisions, combination_lock, low_rank_mdp
from cl_teach.datasets.decisions import lock_factors, policy_value
from cl_teach.models import LowRankFeatures
from cl_teach.signals.contrastive_ucb import ContrastiveUCB, collect, low_rank_model, transition_loss
from cl_teach.training import at_scale, seed_everything

ACTIONS, HORIZON, COPIES, MANY = 4, 5, 8, 64
ROUNDS, EPISODES, LAST = at_scale(20, 40, smoke=3), at_scale(40, 40, smoke=5), at_scale(5, 5, smoke=1)
FIT_STEPS, RIDGE, RATE = at_scale(80, 200, smoke=5), 0.1, 0.05
POINTS = at_scale((125, 500, 2000, 8000), (125, 500, 2000, 8000, 32000), smoke=(125, 500))
RECOVERY_STEPS = at_scale(300, 600, smoke=20)


class Likelihood(ContrastiveUCB):
    """The same features and plan; the fit maximizes the probability of the next states instead."""

    def loss(self, points: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Mean negative log-likelihood."""
        return negative_log_likelihood(*self.features(), points, self.negatives)


def negative_log_likelihood(phi: Tensor, psi: Tensor, points: Tensor, negatives: Tensor) -> Tensor:
    """Of the normalized model; the negatives of the points are not looked at."""
    step, state, action, after, _ = points.unbind(1)
    chances = low_rank_model(phi, psi, negatives).transition
    return -chances[step, state, action, after].clamp_min(1e-12).log().mean()


class Counting:
    """Frequencies as a model, one over the root of the visits as a bonus; ``alike`` names states that mean the same."""

    def __init__(self, reward: Tensor, bonus_scale: float, alike: Tensor) -> None:
        """Start without data."""
        self.reward, self.scale, self.alike = reward, bonus_scale, alike
        horizon, states, actions = reward.shape
        self.policy = torch.full((horizon, states, actions), 1 / actions, dtype=torch.float64)
        self.negatives = torch.full((states,), 1 / states, dtype=torch.float64)
        self.points = torch.empty(0, 5, dtype=torch.int64)

    def step(self, batch: Tensor) -> Tensor:
        """Take in points and plan."""
        self.points = torch.cat([self.points, batch])
        transition, bonus = self.model()
        found = plan(self.reward, transition, bonus, float(len(self.reward)))
        self.policy = F.one_hot(found.policy, self.reward.shape[2]).double()
        return self.policy

    def model(self) -> tuple[Tensor, Tensor]:
        """Frequencies of the next groups of states, spread over their states; 1 / root of the visits."""
        horizon, states, actions = self.reward.shape
        groups = int(self.alike.max()) + 1
        step, state, action, after, _ = self.points.unbind(1)
        counts = torch.zeros(horizon, groups, actions, groups, dtype=torch.float64)
        where = (step, self.alike[state], action, self.alike[after])
        counts.index_put_(where, torch.ones(len(step), dtype=torch.float64), accumulate=True)
        member = F.one_hot(self.alike, groups).double()  # (S, groups)
        among = counts + 1e-9  # nothing seen: anything is as likely
        shares = (among / among.sum(-1, keepdim=True)) @ (member / member.sum(0)).mT  # (H, groups, A, S)
        bonus = self.scale / (RIDGE + counts.sum(-1)).sqrt()  # what `exploration_bonus` gives for one-hot features
        return shares[:, self.alike], bonus.clamp(max=float(horizon))[:, self.alike]


def make(agent: str, lock: Decisions, bonus_scale: float, copies: int, seed: int) -> ContrastiveUCB | Counting:
    """The agent of an arm."""
    states = lock.reward.shape[1]
    if agent in ("counts", "counts-no-bonus", "merged"):
        alike = torch.arange(states) if agent != "merged" else lock_factors(copies)[:, 0]
        return Counting(lock.reward, bonus_scale, alike)
    parts: Tensor | None = lock_factors(copies)
    if agent == "scrambled":
        parts = parts[torch.randperm(states, generator=torch.Generator().manual_seed(seed))]
    options = {"bonus_scale": bonus_scale, "ridge": RIDGE, "bonus_cap": float(HORIZON)}
    kind = Likelihood if agent == "likelihood" else ContrastiveUCB
    factors = None if agent == "free" else parts
    return kind(lock.reward, 3, factors=factors, fit_steps=FIT_STEPS, learning_rate=RATE, **options)


def explore(seed: int, agent: str, bonus_scale: float, copies: int = COPIES) -> dict[str, float | str]:
    """Values of the plans; ``average`` is that of the uniform mixture of all, for which the guarantee speaks."""
    seed_everything(seed)
    lock, draws = combination_lock(ACTIONS, HORIZON, copies, seed=seed), torch.Generator().manual_seed(seed)
    player, values = make(agent, lock, bonus_scale, copies, seed), []
    for _ in range(ROUNDS):
        batch = collect(lock, player.policy, player.negatives, episodes=EPISODES, generator=draws)
        values.append(float(policy_value(lock, player.step(batch))))
    found = {"final": sum(values[-LAST:]) / LAST, "average": sum(values) / ROUNDS}
    return found | {"curve": " ".join(f"{v:.3f}" for v in values)}


def tuned(seed: int, agent: str, bonus_scale: float, copies: int = COPIES) -> float:
    """What the size of the bonus is chosen by: the mean value of all plans."""
    return float(explore(seed, agent, bonus_scale, copies)["average"])


def recover(seed: int, model: str) -> list[dict[str, float | int]]:
    """Mean total variation between the model and the truth, for growing numbers of points."""
    process = low_rank_mdp(8, 3, 1, 2, seed=seed)
    draws = torch.Generator().manual_seed(seed)
    negatives, uniform = torch.full((8,), 1 / 8).double(), torch.full((1, 8, 3), 1 / 3).double()
    points = collect(process, uniform, negatives, episodes=max(POINTS), generator=draws)
    rows = []
    for n in POINTS:
        seed_everything(seed)
        found = frequencies(points[:n]) if model == "frequencies" else fitted(points[:n], model, negatives)
        distance = (found - process.transition[0]).abs().sum(-1).mean() / 2
        rows.append({"points": n, "distance": float(distance)})
    return rows


def frequencies(points: Tensor) -> Tensor:
    """``(S, A, S)``; where nothing was seen, uniform."""
    counts = torch.zeros(8, 3, 8, dtype=torch.float64)
    where = tuple(points[:, 1:4].unbind(1))
    counts.index_put_(where, torch.ones(len(points), dtype=torch.float64), accumulate=True)
    counts += 1e-9
    return counts / counts.sum(-1, keepdim=True)


def fitted(points: Tensor, model: str, negatives: Tensor) -> Tensor:
    """``(S, A, S)`` by Adam on free tables of the true rank."""
    features = LowRankFeatures(1, 8, 3, 2)
    optimizer = torch.optim.Adam(features.parameters(), lr=RATE)
    for _ in range(RECOVERY_STEPS):
        phi, psi = features()
        contrast = model == "contrast"
        loss = transition_loss(phi, psi, points) if contrast else negative_log_likelihood(phi, psi, points, negatives)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return low_rank_model(*(x.detach() for x in features()), negatives).transition[0]


FINAL = Metric(
    "Exact value of the policy, mean of the last five plans (1 is the open lock)",
    "final",
    smallest_effect=0.1,
    reason="A tenth of the way from never to always opening the lock.",
)
AVERAGE = Metric(
    "Exact value of the policy, mean over all plans",
    "average",
    smallest_effect=0.05,
    reason="One plan of twenty that opens the lock.",
)
DISTANCE = Metric(
    "Mean total variation between learned and true transition, 2,000 points",
    "distance",
    smallest_effect=0.01,
    reason="One next state in a hundred.",
)
WORDS = {
    "shared": "contrastive features, shared over parts",
    "no-bonus": "the same without the bonus",
    "free": "contrastive features, free tables",
    "scrambled": "contrastive features, parts dealt at random",
    "likelihood": "features by likelihood, shared over parts",
    "counts": "plain counts",
    "counts-no-bonus": "plain counts without a bonus",
    "merged": "counts, told which states are alike",
}
ARMS: dict[str, dict[str, str | float]] = {name: {"agent": name} for name in WORDS}
ARMS["no-bonus"] |= {"bonus_scale": 0.0}
ARMS["counts-no-bonus"] |= {"bonus_scale": 0.0}
EXPLORATION = Experiment(
    "contrastive-ucb",
    ARMS,
    explore,
    [
        Claim(
            "bonus",
            "With the bonus of its contrastive features an agent opens a lock that it never opens by greedy planning.",
            FINAL,
            "no-bonus",
            "shared",
            headline=True,
        ),
        Claim(
            "against-counts",
            "Contrastive features that share what they learn open the lock sooner than plain counts.",
            AVERAGE,
            "counts",
            "shared",
            origin="ours",
        ),
        Claim(
            "free-against-counts",
            "Contrastive features of free tables open the lock sooner than plain counts.",
            AVERAGE,
            "counts",
            "free",
            origin="ours",
        ),
        Claim(
            "sharing",
            "Sharing over the parts of a state helps the agent.",
            AVERAGE,
            "free",
            "shared",
            origin="ours",
        ),
        Claim(
            "right-parts",
            "It matters that the shared parts are the right ones.",
            AVERAGE,
            "scrambled",
            "shared",
            origin="ours",
        ),
        Claim(
            "against-likelihood",
            "The contrast does as well as the likelihood of the same features, or better.",
            AVERAGE,
            "likelihood",
            "shared",
            origin="ours",
        ),
        Claim(
            "counts-without-bonus",
            "Counts need their bonus.",
            AVERAGE,
            "counts-no-bonus",
            "counts",
            origin="post hoc",
        ),
        Claim(
            "against-merged",
            "Learned features still fall short of an agent that is told which states are alike.",
            AVERAGE,
            "merged",
            "shared",
            expected="lower",
            origin="ours",
        ),
    ],
    WORDS,
    "Lock of five secret actions among four, eight good and eight bad states; 20 plans, 40 episodes before each; "
    "size of the bonus tuned for each agent on three other locks.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"bonus_scale": (0.3, 1.0, 3.0)}, tuned, like={"scrambled": "shared", "no-bonus": "shared"}, widen=1),
)
CROWD = Experiment(
    "contrastive-ucb",
    {f"many-{name}": {"agent": name, "copies": MANY} for name in ("shared", "counts")},
    explore,
    [
        Claim(
            "many-copies",
            "Where nearly every state is new, shared contrastive features open the lock sooner than plain counts.",
            AVERAGE,
            "many-counts",
            "many-shared",
            origin="post hoc",
        ),
    ],
    {f"many-{name}": f"{WORDS[name]}, 64 copies" for name in ("shared", "counts")},
    "The same lock with 64 good and 64 bad states, added after the tuning with eight had shown that counts keep up; "
    "size of the bonus tuned on three other locks.",
    tuning=Tuning({"bonus_scale": (0.01, 0.1, 1.0, 3.0)}, tuned, widen=0),
    runs="contrastive-ucb-many",
)
RECOVERY = Experiment(
    "contrastive-ucb",
    {name: {"model": name} for name in ("contrast", "likelihood", "frequencies")},
    recover,
    [
        Claim(
            "recovery",
            "The contrast of low-rank features finds the transition with fewer points than counting does.",
            DISTANCE,
            "derived:frequencies",
            "derived:contrast",
            expected="lower",
            origin="ours",
            names=("frequencies", "contrast"),
        ),
        Claim(
            "recovery-likelihood",
            "The likelihood of the same features finds it with fewer points still.",
            DISTANCE,
            "derived:contrast",
            "derived:likelihood",
            expected="lower",
            origin="ours",
            names=("contrast", "likelihood"),
        ),
        Claim(
            "rate",
            "Quadrupling the points at least halves the distance of the contrastive model from the truth.",
            Metric(
                "Factor by which the distance falls when the points quadruple, geometric mean from 500 to 8,000",
                "rate",
                smallest_effect=0.1,
                reason="A tenth of a halving more or less.",
            ),
            "derived:half",
            "derived:rate",
            expected="lower",
            origin="paper",
            names=("one half", "contrast"),
        ),
    ],
    {"contrast": "contrast", "likelihood": "likelihood", "frequencies": "frequencies"},
    "Random process of 8 states, 3 actions and rank 2; features of rank 2 by 300 steps of Adam; one negative for each "
    "point.",
    seeds=range(at_scale(10, 10, smoke=2)),
    derive=lambda arms: derived(arms),
    runs="contrastive-ucb-recovery",
)


def derived(arms: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Distances at 2,000 points (the middle one), and the factor for each quadrupling."""
    middle = {name: rows[len(rows) // 2]["distance"] for name, rows in arms.items()}
    rows = arms["contrast"]
    first = min(1, len(rows) - 2)
    return middle | {
        "half": 0.5,
        "rate": (rows[-1]["distance"] / rows[first]["distance"]) ** (1 / (len(rows) - 1 - first)),
    }


EXPERIMENTS = (EXPLORATION, CROWD, RECOVERY)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
