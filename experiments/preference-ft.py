"""Own samples, and pushing bad actions down: which of the two moves a policy to a reward that is far away?

The paper's bandit: 100 actions, a reference that mostly takes the first twenty, a reward with its peak far from them
(action 70) or near (action 20). Four losses; offline (one batch of ten draws in each of 20 states, from the
reference) or with own samples (a fresh batch every ten steps); 300 steps of Adam for all. The policy is a table of
logits, or it sees the actions through 25 overlapping bumps, so that neighbors share weights. The learning rate is
tuned on seeds of its own. What is measured is exact: the expected reward, and how much of the policy's probability lies
on actions that no draw of its state has tried.
"""

from __future__ import annotations

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main

from cl_teach.alignment.preference_ft import PreferenceTuning
from cl_teach.datasets import peaked_bandit
from cl_teach.models import ActionPolicy, bumps
from cl_teach.models.policies import measure
from cl_teach.training import at_scale

STATES, DRAWS, STEPS, REUSE = 20, 10, at_scale(300, 300, smoke=20), 10
CENTERS = {"far": 70.0, "near": 20.0}
LOSSES = ("best_of_n", "reinforce", "dpo", "ipo")


def trial(seed: int, peak: str, policy: str, loss: str, source: str, rate: float = 0.03) -> dict[str, float]:
    """Train one policy and measure it."""
    world, draws = peaked_bandit(center=CENTERS[peak], seed=seed), torch.Generator().manual_seed(seed)
    learner = ActionPolicy(world.reference, STATES, features=bumps() if policy == "shared" else None)
    method = PreferenceTuning(learner, world.reward, loss, learning_rate=rate)
    states, tried = torch.arange(STATES), torch.zeros(STATES, len(world.rewards), dtype=torch.bool)
    steps = STEPS if source == "offline" else REUSE
    for _ in range(STEPS // steps):
        batch = method.collect(states, DRAWS, generator=draws)
        tried.scatter_(1, batch.actions, True)
        method.step(batch, steps=steps)
    found = measure(learner, world.rewards)
    untried = (learner.log_probabilities().detach().exp() * ~tried).sum(1).mean().item()
    return {"reward": found.reward, "untried": untried, "entropy": found.entropy, "divergence": found.divergence}


def score(seed: int, **settings: str | float) -> float:
    """For tuning."""
    return trial(seed, **settings)["reward"]  # type: ignore[arg-type]


def derive(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """What own samples add, where the peak is far and where it is near."""
    gain = {
        peak: rows[f"{peak}-shared-dpo-own"]["reward"] - rows[f"{peak}-shared-dpo-offline"]["reward"]
        for peak in CENTERS
    }
    return {"far": gain["far"], "near": gain["near"]}


ARMS = {
    f"far-{policy}-{loss}-{source}": {"peak": "far", "policy": policy, "loss": loss, "source": source}
    for policy in ("table", "shared")
    for loss in LOSSES
    for source in ("offline", "own")
} | {
    f"near-shared-dpo-{source}": {"peak": "near", "policy": "shared", "loss": "dpo", "source": source}
    for source in ("offline", "own")
}
LIKE = {f"near-shared-dpo-{source}": f"far-shared-dpo-{source}" for source in ("offline", "own")}
WORDS = {"best_of_n": "Best-of-N", "reinforce": "REINFORCE", "dpo": "DPO", "ipo": "IPO"}
REWARD = Metric("Expected reward", "reward", smallest_effect=0.05, reason="A twentieth of the way from 0 to the best.")
UNTRIED = Metric(
    "Probability of actions that were never tried",
    "untried",
    smallest_effect=0.05,
    reason="A twentieth of all probability.",
)
NOTE = "100 actions, 20 states, 10 draws in each, 300 steps of Adam, rate tuned alike for all arms with the far peak."


def against(claim_id: str, sentence: str, baseline: str, method: str, **more: object) -> Claim:
    """A claim about the reward."""
    return Claim(claim_id, sentence, REWARD, baseline, method, **more)  # type: ignore[arg-type]


EXPERIMENTS = (
    Experiment(
        "preference-ft",
        ARMS,
        trial,
        [
            against(
                "own-samples",
                "Where the reward is far from the reference, own samples earn more than one batch of the reference's.",
                "far-shared-dpo-offline",
                "far-shared-dpo-own",
                headline=True,
            ),
            against(
                "own-samples-best-of-n",
                "The same for maximum likelihood of the best of ten.",
                "far-shared-best_of_n-offline",
                "far-shared-best_of_n-own",
            ),
            against(
                "own-samples-table",
                "The same for DPO on a table of logits.",
                "far-table-dpo-offline",
                "far-table-dpo-own",
            ),
            Claim(
                "own-samples-far-or-near",
                "Own samples add more where the peak is far than where it is near.",
                REWARD,
                "derived:near",
                "derived:far",
                names=("DPO's gain, peak near", "DPO's gain, peak far"),
            ),
            *(
                against(
                    f"negative-{loss}-{policy}".replace("_", "-"),
                    f"Offline, {WORDS[loss]}, which pushes bad actions down, earns more than Best-of-N, on {where}.",
                    f"far-{policy}-best_of_n-offline",
                    f"far-{policy}-{loss}-offline",
                )
                for policy, where in (("table", "a table"), ("shared", "shared weights"))
                for loss in ("reinforce", "dpo", "ipo")
            ),
            against(
                "negative-own-samples",
                "With own samples DPO earns more than Best-of-N, on shared weights.",
                "far-shared-best_of_n-own",
                "far-shared-dpo-own",
            ),
            Claim(
                "untried-table",
                "On a table offline DPO leaves more probability on actions nobody tried than Best-of-N.",
                UNTRIED,
                "far-table-best_of_n-offline",
                "far-table-dpo-offline",
                origin="ours",
            ),
            Claim(
                "untried-sharing",
                "Shared weights take probability from untried actions: DPO leaves less there than on a table.",
                UNTRIED,
                "far-table-dpo-offline",
                "far-shared-dpo-offline",
                expected="lower",
                origin="ours",
            ),
        ],
        {arm: f"{WORDS[x['loss']]}, {x['source']}, {x['policy']}" for arm, x in ARMS.items()},
        NOTE,
        seeds=range(20),
        looks=LOOKS,
        tuning=Tuning({"rate": (0.03, 0.1, 0.3)}, score, like=LIKE, widen=1),
        derive=derive,
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
