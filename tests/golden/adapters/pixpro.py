"""Adapter of PixPro (``pixpro``)."""

from __future__ import annotations

from helpers import UnknownQuantity, gradients, with_grad
from torch.nn import functional as F

from cl_teach.core.crop_geometry import positive_cells
from cl_teach.views.pixpro import pix_contrast, propagate_cells
from cl_teach.views.pixpro import pixpro as pixpro_loss


def pixpro(quantity, inputs, params):
    if quantity not in ("pixpro_loss", "pixcontrast_loss"):
        raise UnknownQuantity(quantity)
    x1, x2 = with_grad(inputs["x1"]), with_grad(inputs["x2"])
    k1, k2 = inputs["k1"], inputs["k2"]
    positives = positive_cells(inputs["coord1"], inputs["coord2"], *x1.shape[2:], params["threshold"])
    if quantity == "pixcontrast_loss":
        loss = pix_contrast(x1, x2, k1, k2, positives, params["temperature"])
        return {"loss": loss, **gradients(loss, x1=x1, x2=x2)}

    def smooth(x):
        g = F.conv2d(x, inputs["Wg"][:, :, None, None], inputs["bg"]) if params["g_layers"] else x
        return propagate_cells(x, g, gamma=params["gamma"], clamp=params["clamp"])

    y1, y2 = smooth(x1), smooth(x2)
    loss = pixpro_loss(y1, y2, k1, k2, positives)
    result = {"loss": loss, "y1": y1, "positive_mask": positives.int(), "positive_count": positives.sum((1, 2))}
    return result | gradients(loss, x1=x1, x2=x2)
