"""Adapter of RCAL (``rcal``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad

from cl_teach.datasets.imperfect import noise_transition, polluted_moments
from cl_teach.labels.rcal import calibrate_tails, classifier_loss, head_classes, robust_gaussians


def rcal(quantity, inputs, params):
    if quantity == "rcal_robust_class_gaussians":
        settings = {"n_neighbors": params["n_neighbors"], "lof_threshold": params["lof_threshold"]}
        found = robust_gaussians(inputs["z"], inputs["noisy_labels"], **settings)
        return {"lof": found.lof, "inlier": found.inlier, "means": found.means, "covs": found.covs}
    if quantity == "rcal_tail_calibration":
        settings = {name: params[name] for name in ("q", "gamma", "alpha", "weighting")}
        given = (inputs["means"], inputs["covs"], inputs["class_sizes"], inputs["head_classes"])
        found = calibrate_tails(*given, **settings)
        chosen = [x.tolist() for x in found.heads]
        weights = [x.tolist() for x in found.weights]
        return {"means": found.means, "covs": found.covs, "selected_heads": chosen, "weights": weights}
    if quantity == "rcal_head_classes":
        return {"head_classes": head_classes(inputs["class_sizes"], params["share"])}
    if quantity == "rcal_noise_transition":
        found = noise_transition(inputs["class_sizes"], params["eta"], params["model"])
        return {"transition": found.transition, "noisy_priors": found.noisy_priors}
    if quantity == "rcal_polluted_moments":
        priors, means, covs = polluted_moments(inputs["means"], inputs["cov"], inputs["priors"], params["eta"])
        return {"noisy_priors": priors, "noisy_means": means, "noisy_covs": covs}
    if quantity == "rcal_classifier_loss":
        z, logits = with_grad(inputs["z"]), with_grad(inputs["logits"])
        given = (inputs["z_contrastive"], logits, inputs["labels"], inputs["permutation"], params["mix_lambda"])
        loss = classifier_loss(z, *given, beta=params["beta"])
        return {"loss": loss, **gradients(loss, z=z, logits=logits)}
    raise UnknownQuantity(quantity)
