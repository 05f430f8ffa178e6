"""Valid calls of the alignment methods, and of the worlds, policies and losses under them."""

from __future__ import annotations

from pathlib import Path

import torch
from fuzzing import generator, normal, uniform, whole
from torch import nn

from cl_teach.alignment import (
    constrained_rlhf,
    likelihood_displacement,
    loss_reweighting,
    preference_ft,
    sparsepo,
    wagle,
)
from cl_teach.core import divergences, frozen, gradients, multipliers, policy_gradient, search
from cl_teach.datasets import bandits, facts, preferences, redundant
from cl_teach.models import activations, policies, sequence, token_mask
from cl_teach.models.language_model import LanguageModel

TOKENS, OTHERS = whole(7, 4, 5), whole(7, 4, 5, seed=1)
VALID = torch.tensor([[True, True, True, False]] * 4)
MASK = torch.tensor([[False, True, True, True, False]] * 4)
REFERENCE = uniform(5) + 0.1
STATES = torch.arange(3)
WORLD = bandits.proxy_bandit(6)


def model() -> LanguageModel:
    """A small one."""
    torch.manual_seed(0)
    return LanguageModel(7, 6)


def rewards(tokens: torch.Tensor) -> torch.Tensor:
    """Of two reward models."""
    return torch.stack([(tokens == 1).float().mean(1), (tokens == 2).float().mean(1)], dim=1)


def held(kind: str = "equality") -> multipliers.Multipliers:
    """Of two thresholds."""
    return multipliers.Multipliers(torch.tensor([0.5, 0.6]), kind, initial=torch.tensor([0.1, -0.2]))


def writer() -> constrained_rlhf.ConstrainedPPO:
    """Of texts of four tokens."""
    return constrained_rlhf.ConstrainedPPO(model(), 6, rewards, held(), length=4, minibatch=8, epochs=1)


def bandit() -> constrained_rlhf.ConstrainedBandit:
    """After one loss."""
    made = constrained_rlhf.ConstrainedBandit(WORLD, held())
    made.loss()
    return made


def terms(seed: int = 0) -> sparsepo.TokenTerms:
    """Of four tokens."""
    return sparsepo.TokenTerms(normal(4, 4, seed=seed), uniform(4, 4, seed=seed), VALID)


def weights(seed: int = 0) -> sparsepo.TokenWeights:
    """Of four tokens."""
    return sparsepo.TokenWeights(uniform(4, 4, seed=seed), uniform(4, 4, seed=seed + 5))


def sparse(kind: str = "common") -> sparsepo.SparsePO:
    """With raw activations where it needs them."""
    layers = ("embedding", "recurrence") if kind == "activation" else ()
    return sparsepo.SparsePO(model(), 6, kind=kind, layers=layers)


def filtered() -> likelihood_displacement.FilteredDPO:
    """Four pairs, two kept."""
    return likelihood_displacement.FilteredDPO(model(), TOKENS, OTHERS, MASK, MASK, share=0.5)


def unlearning(objective: str = "npo") -> wagle.Unlearning:
    """Four sequences each."""
    return wagle.Unlearning(model(), TOKENS, OTHERS, ratio=0.3, objective=objective, refusal=6)


def reweighted() -> loss_reweighting.ReweightedTraining:
    """With an optimizer."""
    made = model()
    return loss_reweighting.ReweightedTraining(made, torch.optim.SGD(made.parameters(), 0.1))


def tuning(name: str = "dpo") -> preference_ft.PreferenceTuning:
    """Of a table."""
    return preference_ft.PreferenceTuning(policies.ActionPolicy(REFERENCE, 3), reward, name)


def reward(actions: torch.Tensor) -> torch.Tensor:
    """A number an action."""
    return actions.float()


def drawn() -> preference_ft.Draws:
    """Of three states."""
    return tuning().collect(STATES, 4, generator=generator())


def trained() -> dict[str, object]:
    """One reward lies below its threshold."""
    return dict(
        train=lambda: torch.tensor([0.4, 0.6]),
        gold=lambda: 0.5,
        multipliers=held(),
        thresholds=torch.tensor([0.5, 0.7]),
        steps=3,
        every=1,
    )


def named(seed: int = 0) -> dict[str, torch.Tensor]:
    """Two tensors by name."""
    return {"w": normal(2, 3, seed=seed), "b": normal(2, seed=seed + 1)}


def leaves() -> dict[str, torch.Tensor]:
    """Parameters, and a loss of them."""
    theta = {name: x.requires_grad_() for name, x in named().items()}
    return dict(
        loss=lambda batch: sum((x * batch.sum()).square().sum() for x in theta.values()),
        parameters=theta,
        batches=[normal(3), normal(3, seed=1)],
    )


ROWS = dict(log_p=-uniform(3, 4), rewards=uniform(3, 4, seed=1))
FOUR = ROWS | dict(reference=-uniform(3, 4, seed=2))

CALLS = {
    # core
    frozen.FrozenCopy: lambda: dict(network=nn.Linear(3, 2)),
    search.first_simplex: lambda: dict(start=torch.zeros(2), top=torch.ones(2), generator=generator()),
    search.nelder_mead: lambda: dict(
        objective=lambda x: float(x.sum()),
        simplex=normal(3, 2),
        max_evaluations=12,
        max_iterations=20,
        reflection=1.0,
        expansion=2.0,
        contraction=0.5,
        shrink=0.5,
        cache_tolerance=5e-3,
        tolerance=0.01,
    ),
    policy_gradient.probability_ratio: lambda: dict(log_p=-uniform(4), old=-uniform(4, seed=1)),
    policy_gradient.clipped_policy_loss: lambda: dict(
        log_p=-uniform(4), old=-uniform(4, seed=1), advantages=normal(4), clip=0.2
    ),
    policy_gradient.reward_to_go: lambda: dict(rewards=normal(2, 3, 2)),
    policy_gradient.advantages_and_returns: lambda: dict(
        rewards=normal(2, 3, 2), values=normal(2, 3, 2, seed=1), gamma=0.9, smoothing=0.8
    ),
    multipliers.squash: [lambda k=k: dict(raw=normal(3), kind=k) for k in multipliers.KINDS],
    multipliers.violations: lambda: dict(to_go=normal(4, 2), thresholds=normal(2)),
    multipliers.multiplier_loss: lambda: dict(raw=normal(3), violation=normal(3, seed=1), kind="equality"),
    multipliers.Multipliers: lambda: dict(
        thresholds=normal(2),
        kind="equality",
        initial=normal(2),
        learning_rate=0.1,
        momentum=0.1,
        max_norm=0.5,
        bound=5.0,
        generator=generator(),
    ),
    multipliers.Multipliers.forward: lambda: (held(), {}),
    multipliers.Multipliers.near: lambda: (held(), {}),
    multipliers.Multipliers.update: [lambda k=k: (held(k), dict(to_go=normal(4, 2))) for k in ("inequality", "fixed")],
    # worlds
    bandits.peaked_bandit: lambda: dict(actions=6, center=4.0, width=1.0, draws=50, seed=0, device="cpu"),
    bandits.PeakedBandit.reward: lambda: (bandits.peaked_bandit(6), dict(actions=whole(6, 3, 2))),
    bandits.ProxyBandit.gold: lambda: (WORLD, dict(rewards=uniform(4, 2))),
    bandits.proxy_bandit: lambda: dict(
        actions=6, shared=0.5, noise=0.3, steepness=6.0, point=(0.6, 0.65), width=0.15, seed=0, device="cpu"
    ),
    facts.named_facts: lambda: dict(people=5, relations=2, colors=3, forget=0.2, seed=0, device="cpu"),
    preferences.planted_preferences: lambda: dict(n=4, vocabulary=7, length=3, flipped=0.5, seed=0, device="cpu"),
    preferences.library_preferences: lambda: dict(
        n=4,
        vocabulary=40,
        prompt=2,
        response=3,
        seed=0,
        folder=str(Path(torch.__file__).parent / "optim"),
        device="cpu",
    ),
    redundant.redundant_regression: lambda: dict(
        n=6, width=3, informative=0.5, scale=0.1, corrupted=0.2, seed=0, device="cpu"
    ),
    # models
    activations.recorded: lambda: dict(
        network=nn.Sequential(nn.Linear(3, 2), nn.ReLU()), layers=["0"], inputs=[torch.ones(2, 3)]
    ),
    policies.bumps: lambda: dict(actions=6, count=3, width=1.0),
    policies.ActionPolicy: lambda: dict(reference=REFERENCE, states=3, features=uniform(5, 2)),
    policies.ActionPolicy.log_probabilities: lambda: (policies.ActionPolicy(REFERENCE, 3), {}),
    policies.ActionPolicy.forward: lambda: (
        policies.ActionPolicy(REFERENCE, 3),
        dict(states=STATES, actions=whole(5, 3, 4)),
    ),
    policies.ActionPolicy.sample: lambda: (
        policies.ActionPolicy(REFERENCE, 3),
        dict(states=STATES, n=2, generator=generator()),
    ),
    policies.TokenPolicy: lambda: dict(reference=REFERENCE, states=3, length=2, width=4),
    policies.TokenPolicy.forward: lambda: (
        policies.TokenPolicy(REFERENCE, 3, length=2, width=4),
        dict(states=STATES, actions=whole(5, 3, 4, 2)),
    ),
    policies.TokenPolicy.sample: lambda: (
        policies.TokenPolicy(REFERENCE, 3, length=2, width=4),
        dict(states=STATES, n=2, generator=generator()),
    ),
    sequence.predicting_states: lambda: dict(time=6, last_prompt=torch.tensor([1, 2]), last_token=torch.tensor([4, 5])),
    sequence.token_log_probability: lambda: dict(logits=normal(4, 5, 7), labels=TOKENS),
    sequence.response_log_probability: lambda: dict(logits=normal(4, 5, 7), tokens=TOKENS, mask=MASK),
    sequence.read_tokens: lambda: dict(model=model(), tokens=TOKENS, name="tokens"),
    sequence.continue_tokens: lambda: dict(model=model(), tokens=TOKENS, length=2, generator=generator()),
    # preference fine-tuning
    preference_ft.advantages: lambda: dict(rewards=normal(3, 4)),
    preference_ft.best_of_n: lambda: ROWS | dict(negative_weight=0.3, against="rest"),
    preference_ft.rwr: lambda: ROWS | dict(beta=0.5),
    preference_ft.policy_gradient: lambda: FOUR | dict(beta_kl=0.1),
    preference_ft.ppo: lambda: FOUR | dict(old=-uniform(3, 4, seed=3), beta_kl=0.1, clip=0.2),
    preference_ft.margins: lambda: FOUR | dict(minimum_gap=0.01),
    preference_ft.dpo: lambda: dict(margin=normal(5), beta=0.1),
    preference_ft.ipo: lambda: dict(margin=normal(5), target=2.0),
    divergences.divergence: [
        lambda: dict(logits=normal(4), target=normal(4, seed=1).softmax(0), kind="forward"),
        lambda: dict(logits=normal(4), target=normal(4, seed=1).softmax(0), kind="reverse"),
    ],
    divergences.divergence_gradient: lambda: dict(
        logits=normal(4), target=normal(4, seed=1).softmax(0), kind="reverse"
    ),
    divergences.descend: lambda: dict(
        logits=normal(4), target=normal(4, seed=1).softmax(0), kind="forward", step_size=0.5, steps=3
    ),
    policies.measure: lambda: dict(policy=policies.ActionPolicy(REFERENCE, 3), rewards=uniform(5)),
    preference_ft.PreferenceTuning: lambda: dict(
        policy=policies.ActionPolicy(REFERENCE, 3), reward=reward, name="dpo", learning_rate=0.03
    ),
    preference_ft.PreferenceTuning.forward: lambda: (tuning(), dict(states=STATES, actions=whole(5, 3, 4))),
    preference_ft.PreferenceTuning.collect: lambda: (tuning(), dict(states=STATES, n=3, generator=generator())),
    preference_ft.PreferenceTuning.loss: [
        lambda name=name: (tuning(name), {**drawn()._asdict(), "generator": generator()})
        for name in preference_ft.PreferenceTuning.LOSSES
    ],
    preference_ft.PreferenceTuning.step: lambda: (tuning(), dict(batch=drawn(), steps=2)),
    # likelihood displacement
    likelihood_displacement.ches: lambda: dict(
        states_plus=normal(4, 5, 3), mask_plus=MASK, states_minus=normal(4, 5, 3, seed=1), mask_minus=MASK
    ),
    likelihood_displacement.keep_lowest: lambda: dict(scores=normal(5), share=0.5),
    likelihood_displacement.token_velocity: lambda: dict(
        unembedding=normal(5, 3),
        state=normal(3),
        plus=1,
        minus=3,
        beta=0.1,
        reference_gap=0.2,
        train_unembedding=True,
    ),
    likelihood_displacement.pair_velocity: lambda: dict(
        unembedding=normal(5, 3),
        states_plus=torch.cat([torch.ones(1, 3), normal(1, 3)]),
        states_minus=torch.cat([torch.ones(1, 3), normal(1, 3, seed=1)]),
        plus=torch.tensor([0, 2]),
        minus=torch.tensor([1, 4]),
        beta=0.1,
        reference_gap=0.2,
    ),
    likelihood_displacement.FilteredDPO: lambda: dict(
        model=model(), plus=TOKENS, minus=OTHERS, mask_plus=MASK, mask_minus=MASK, share=0.5, beta=0.1
    ),
    likelihood_displacement.FilteredDPO.loss: lambda: (
        filtered(),
        dict(index=torch.arange(3), generator=generator()),
    ),
    likelihood_displacement.FilteredDPO.forward: lambda: (filtered(), dict(index=torch.arange(3))),
    likelihood_displacement.FilteredDPO.displacement: lambda: (filtered(), dict(index=torch.arange(3))),
    # SparsePO
    sparsepo.token_terms: lambda: dict(
        logits=normal(4, 4, 7), reference_logits=normal(4, 4, 7, seed=1), labels=whole(7, 4, 4), valid=VALID
    ),
    sparsepo.sparse_preference_loss: lambda: dict(
        chosen=terms(),
        rejected=terms(1),
        weights_chosen=weights(),
        weights_rejected=weights(1),
        beta=0.8,
        lambda_u=0.1,
        lambda_d=0.2,
    ),
    sparsepo.activation_mask: lambda: dict(
        activations=[[normal(4, 4, 3), normal(4, 4, 2)], [normal(4, 4, 3, seed=1)]], valid=VALID
    ),
    token_mask.TokenMask: lambda: dict(layers=2, width=6, dropout=0.1),
    token_mask.TokenMask.forward: lambda: (token_mask.TokenMask(2, 6), dict(states=normal(2, 4, 5, 6))),
    sparsepo.SparsePO: lambda: dict(
        model=model(),
        width=6,
        kind="independent",
        layers=("embedding", "norm"),
        beta=0.8,
        lambda_u=0.1,
        lambda_d=0.1,
        dropout=0.01,
    ),
    sparsepo.SparsePO.parameter_groups: lambda: (sparse(), dict(learning_rate=0.1, weight_decay=0.01)),
    sparsepo.SparsePO.weights: [
        lambda: (sparse(), dict(states=[normal(4, 4, 6)], valid=VALID)),
        lambda: (sparse("dpo"), dict(states=[normal(4, 4, 6)], valid=VALID)),
        lambda: (sparse("activation"), dict(states=[normal(4, 4, 6), normal(4, 4, 6, seed=1)], valid=VALID)),
    ],
    sparsepo.SparsePO.terms: lambda: (sparse(), dict(tokens=TOKENS, valid=VALID)),
    sparsepo.SparsePO.loss: [
        lambda k=k: (
            sparse(k),
            dict(chosen=TOKENS, rejected=OTHERS, valid_chosen=VALID, valid_rejected=None, generator=generator()),
        )
        for k in ("common", "activation")
    ],
    sparsepo.SparsePO.forward: lambda: (sparse(), {"*": (TOKENS, OTHERS)}),
    # constrained RLHF
    constrained_rlhf.mixed_advantages: lambda: dict(
        constraints=normal(4, 2), kl=normal(4), weights=normal(2), near=0.5
    ),
    constrained_rlhf.saturating_reward: lambda: dict(
        rewards=normal(4, 2), thresholds=normal(2), coefficients=uniform(2)
    ),
    constrained_rlhf.value_loss: lambda: dict(
        values=normal(4, 3), returns_constraint=normal(4, 2), returns_kl=normal(4), constraint=0.5, kl=0.2
    ),
    constrained_rlhf.score_thresholds: trained,
    constrained_rlhf.ConstrainedPPO: lambda: dict(
        model=model(),
        width=6,
        reward_models=rewards,
        multipliers=held(),
        length=4,
        kl_coefficient=0.2,
        learning_rate=3e-3,
        epochs=1,
        minibatch=8,
    ),
    constrained_rlhf.ConstrainedPPO.forward: lambda: (writer(), dict(tokens=TOKENS)),
    constrained_rlhf.ConstrainedPPO.write: lambda: (writer(), dict(texts=2, generator=generator())),
    constrained_rlhf.ConstrainedPPO.rate: lambda: (writer(), dict(tokens=TOKENS)),
    constrained_rlhf.ConstrainedPPO.loss: [
        lambda picked=picked: (
            writer(),
            dict(batch=writer().rate(TOKENS)._replace(picked=picked), generator=generator()),
        )
        for picked in (None, torch.tensor([0, 5, 3]))
    ],
    constrained_rlhf.ConstrainedPPO.step: lambda: (writer(), dict(batch=TOKENS, generator=generator())),
    constrained_rlhf.ConstrainedBandit: lambda: dict(
        world=WORLD, multipliers=held(), saturating=True, kl_coefficient=0.05
    ),
    constrained_rlhf.ConstrainedBandit.forward: lambda: (bandit(), {}),
    constrained_rlhf.ConstrainedBandit.loss: lambda: (bandit(), dict(generator=generator())),
    constrained_rlhf.ConstrainedBandit.after_step: lambda: (bandit(), {}),
    constrained_rlhf.ConstrainedBandit.gold: lambda: (bandit(), {}),
    # loss reweighting
    loss_reweighting.place_in_range: lambda: dict(losses=uniform(5)),
    loss_reweighting.scores: [
        lambda k=k: dict(place=2 * uniform(5) - 1, strategy=k) for k in loss_reweighting.STRATEGIES
    ],
    loss_reweighting.sample_weights: lambda: dict(losses=uniform(5), temperature=0.4, strategy="upper"),
    loss_reweighting.reweighted_loss: lambda: dict(losses=uniform(5), temperature=0.4, strategy="upper"),
    loss_reweighting.device_loss: lambda: dict(losses=uniform(3), weights=uniform(6) / 6, device=1, devices=2),
    loss_reweighting.effective_sample_size: lambda: dict(weights=torch.full((4,), 0.25)),
    loss_reweighting.sequence_losses: lambda: dict(logits=normal(4, 4, 7), labels=whole(7, 4, 4), valid=VALID),
    loss_reweighting.temperature_at: lambda: dict(step=3, stages=((0, 100.0), (2, 0.5))),
    loss_reweighting.ReweightedTraining: lambda: dict(
        model=model(),
        optimizer=torch.optim.SGD([torch.zeros(2, requires_grad=True)], 0.1),
        strategy="upper",
        stages=((0, 100.0), (2, 0.5)),
        max_norm=1.0,
    ),
    loss_reweighting.ReweightedTraining.loss: lambda: (
        reweighted(),
        dict(tokens=TOKENS, valid=VALID, generator=generator()),
    ),
    loss_reweighting.ReweightedTraining.forward: lambda: (reweighted(), dict(tokens=TOKENS, valid=VALID)),
    loss_reweighting.ReweightedTraining.step: lambda: (reweighted(), dict(batch=TOKENS, valid=VALID)),
    loss_reweighting.ReweightedTraining.after_step: lambda: (reweighted(), {}),
    # WAGLE
    gradients.loss_gradients: lambda: leaves() | dict(reduction="mean"),
    gradients.squared_gradients: lambda: leaves() | dict(floor=1e-8),
    wagle.attribution: [
        lambda: dict(parameters=named(), forget=named(2), retain=named(4), gamma=0.5),
        lambda: dict(
            parameters=named(),
            forget=named(2),
            retain=named(4),
            gamma={name: x.abs() + 0.1 for name, x in named(6).items()},
        ),
    ],
    wagle.keep_largest: lambda: dict(scores=named(), ratio=0.5),
    wagle.mean_token_loss: lambda: dict(logits=normal(4, 5, 7), labels=TOKENS),
    wagle.with_retain: lambda: dict(forget_term=torch.tensor(1.0), retain_loss=torch.tensor(2.0), retain_weight=0.5),
    wagle.grad_diff: lambda: dict(forget_loss=torch.tensor(1.0), retain_loss=torch.tensor(2.0), retain_weight=0.5),
    wagle.npo: lambda: dict(log_p=-uniform(4), reference=-uniform(4, seed=1), beta=0.1),
    wagle.Unlearning: lambda: dict(
        model=model(),
        forget=TOKENS,
        retain=OTHERS,
        ratio=0.3,
        gamma=1e-3,
        objective="po",
        retain_weight=1.0,
        beta=0.1,
        forget_bound=6.0,
        refusal=6,
    ),
    wagle.Unlearning.use_masks: lambda: (
        unlearning(),
        dict(masks={name: x > 0 for name, x in model().named_parameters()}),
    ),
    wagle.Unlearning.answer_loss: lambda: (unlearning(), dict(tokens=TOKENS)),
    wagle.Unlearning.loss: [
        lambda k=k: (unlearning(k), dict(forget=TOKENS, retain=OTHERS, generator=generator())) for k in wagle.OBJECTIVES
    ],
    wagle.Unlearning.forward: lambda: (unlearning(), dict(forget=TOKENS, retain=OTHERS)),
    wagle.Unlearning.after_step: lambda: (unlearning(), {}),
    wagle.answer_accuracy: lambda: dict(model=model(), tokens=TOKENS),
}

EXEMPT = {
    frozen.FrozenCopy.forward: "hands whatever it gets to the network it holds",
    frozen.evaluating: "a context manager that only switches modes",
}

UNCHECKED = {
    (preferences.library_preferences, "folder"): "a folder that is not there is a FileNotFoundError that names it",
    (gradients.loss_gradients, "batches"): "handed to the caller's loss as they are",
    (gradients.squared_gradients, "batches"): "handed to the caller's loss as they are",
    (activations.recorded, "inputs"): "handed to the network as they are, floats of any size",
}
