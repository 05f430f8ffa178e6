"""Two rewards that are good up to a point: fixed weights, saturating rewards, or multipliers that hold the point?

The proxy bandit: 60 actions, two proxies of a gold score that is best where their means are (0.6, 0.65). All
expectations are exact; 1,000 steps of Adam at 0.05. Arms: PPO (fixed weights 1), PPO-SAT (fixed weights on squared
distances; 1, or tuned on three other worlds), All-PPO (the sum is climbed, thresholds bound it), mu-PPO (inequalities),
xi-PPO (equalities), all but PPO with the right thresholds. Then a search: thresholds are unknown, and 20 of them are
tried within the same 1,000 steps, by Nelder and Mead or at random.

The paper's first claim has runs of its own: fixed weights climb the first proxy alone, while the second is independent
of it or follows it. Where on the way, measured in the first proxy, is the gold score best?
"""

from __future__ import annotations

import math

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor

from cl_teach.alignment.constrained_rlhf import ConstrainedBandit, score_thresholds
from cl_teach.core.multipliers import Multipliers
from cl_teach.core.search import first_simplex, nelder_mead
from cl_teach.datasets import proxy_bandit
from cl_teach.training import at_scale

STEPS, RATE, MULTIPLIER_RATE, EVALUATIONS = at_scale(1000, 1000, smoke=40), 0.05, 0.05, at_scale(20, 20, smoke=4)


def trial(seed: int, learner: str, shared: float = 0.5, alpha: float = 1.0) -> dict[str, float]:
    """Train one learner; gold score at the end, the best on the way, and where that was."""
    world, draws = proxy_bandit(shared=shared, seed=seed), torch.Generator().manual_seed(seed)
    kind = {"ppo": "fixed", "alone": "fixed", "sat": "fixed", "all": "upper", "mu": "inequality"}.get(learner)
    initial = {"alone": torch.tensor([1.0, 0.0]), "sat": torch.tensor([alpha, alpha])}.get(learner)
    multipliers = Multipliers(
        world.point, kind or "equality", initial=initial, learning_rate=MULTIPLIER_RATE, generator=draws
    )
    bandit = ConstrainedBandit(world, multipliers, saturating=learner == "sat")
    optimizer, path = torch.optim.Adam(bandit.parameters(), lr=RATE), list[Tensor]()

    def step() -> Tensor:
        found = bandit.loss()
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        bandit.after_step()
        path.append(found.rewards)
        return found.rewards

    def evaluate(thresholds: Tensor) -> float:
        each = STEPS // EVALUATIONS
        return score_thresholds(step, bandit.gold, multipliers, thresholds.float(), steps=each, every=5)

    if learner == "search":
        simplex = first_simplex(torch.tensor([0.3, 0.3]), torch.tensor([1.0, 1.0]), generator=draws)
        nelder_mead(evaluate, simplex, max_evaluations=EVALUATIONS)
    elif learner == "guess":
        for thresholds in 0.3 + 0.7 * torch.rand(EVALUATIONS, 2, generator=draws):
            evaluate(thresholds)
    else:
        for _ in range(STEPS):
            step()
    rewards = torch.stack(path)  # (steps, 2)
    gold = world.gold(rewards)
    best = int(gold.argmax())
    found = {"gold": bandit.gold(), "best": gold[best].item(), "point": rewards[best, 0].item()}
    centered = world.proxies - world.proxies.mean(0)
    correlation = (centered.prod(1).sum() / centered.square().sum(0).prod().sqrt()).item()
    found |= {"first": rewards[-1, 0].item(), "second": rewards[-1, 1].item(), "correlation": correlation}
    return found | {"steps": float(len(path)), "distance": math.dist(rewards[-1].tolist(), world.point.tolist())}


LEARNERS = {"ppo": "PPO", "sat": "PPO-SAT", "all": "All-PPO", "mu": "mu-PPO", "xi": "xi-PPO"}
LEARNERS |= {"search": "xi-PPO, thresholds searched", "guess": "xi-PPO, thresholds guessed"}
ARMS: dict[str, dict[str, object]] = {learner: {"learner": learner, "shared": 0.5} for learner in LEARNERS}
ARMS |= {"sat": ARMS["sat"] | {"alpha": 1.0}, "sat-tuned": ARMS["sat"] | {"alpha": 10.0}}
ARMS |= {
    f"{learner}-{words}": {"learner": learner, "shared": shared}
    for learner in ("alone", "xi")
    for words, shared in (("independent", 0.0), ("following", 1.0))
}
GOLD = Metric("Gold score at the end", "gold", smallest_effect=0.05, reason="A twentieth of the best possible.")
BEST = Metric("Best gold score seen", "best", smallest_effect=0.05, reason="A twentieth of the best possible.")
POINT = Metric(
    "First proxy where the gold score is best",
    "point",
    smallest_effect=0.02,
    reason="An eighth of the width of the gold score's peak.",
)
NOTE = "Exact gradients, 60 actions, 1,000 steps of Adam at 0.05, multipliers at 0.05, c = 0.05; nothing tuned."


def gold(claim_id: str, sentence: str, baseline: str, method: str, **more: object) -> Claim:
    """A claim about the gold score at the end."""
    return Claim(claim_id, sentence, GOLD, baseline, method, **more)  # type: ignore[arg-type]


EXPERIMENTS = (
    Experiment(
        "constrained-rlhf",
        ARMS,
        trial,
        [
            gold(
                "overoptimization",
                "Multipliers that hold every proxy at its point end at a better gold score than fixed weights.",
                "ppo",
                "xi",
                headline=True,
            ),
            gold("mu-against-ppo", "Inequalities end better than fixed weights.", "ppo", "mu"),
            gold("xi-against-mu", "Equalities end better than inequalities.", "mu", "xi"),
            gold("xi-against-sat", "Multipliers end better than saturating rewards.", "sat", "xi"),
            gold(
                "xi-against-tuned-sat",
                "Multipliers end better than saturating rewards whose weights were tuned.",
                "sat-tuned",
                "xi",
                origin="post hoc",
                note="PPO-SAT's weights 1, 3, 10 and 30 were tried on three other worlds, after the first look.",
            ),
            gold("xi-against-all", "Holding the points is better than climbing the sum up to them.", "all", "xi"),
            Claim(
                "proxy-point",
                "Where the second proxy follows the first, the first one's proxy point lies lower.",
                POINT,
                "alone-independent",
                "alone-following",
                "lower",
            ),
            Claim(
                "search",
                "Within the steps of one run, thresholds found by Nelder and Mead end better than guessed ones.",
                GOLD,
                "guess",
                "search",
                origin="ours",
            ),
            Claim(
                "search-best",
                "The best policy met by the search is better than the best one met by guessing.",
                BEST,
                "guess",
                "search",
                origin="ours",
            ),
        ],
        {
            arm: LEARNERS[arm]
            if arm in LEARNERS
            else "PPO-SAT, tuned weights"
            if arm == "sat-tuned"
            else {"alone": "climbing the first proxy", "xi": "xi-PPO"}[str(x["learner"])]
            + f", second one {arm.partition('-')[2]}"
            for arm, x in ARMS.items()
        },
        NOTE,
        seeds=range(20),
        looks=LOOKS,
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
