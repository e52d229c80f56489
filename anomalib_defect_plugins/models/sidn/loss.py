"""Losses of SIDN: segmentation (eq. 5) and feature separation (eq. 8 to 19).

The paper's sums are means here, because the weight of a sum over pixels or features would depend on the size of the
images and of the batch.
"""

import torch
from torch import Tensor
from torch.nn import functional


def segmentation_loss(
    texture_logits: Tensor, defect_logits: Tensor, mask: Tensor, texture_weight: float = 0.1
) -> Tensor:
    """L_s, eq. 5: cross-entropy of both segmentations, with a lower weight on texture pixels.

    Args:
        texture_logits: Logits of I_s^t, shape (B, 1, H, W).
        defect_logits: Logits of I_s^d, shape (B, 1, H, W).
        mask: I_m, shape (B, 1, H, W), 1 on defects.
        texture_weight: lambda_1.
    """
    mask = mask.to(texture_logits)
    weight = texture_weight * (1 - mask) + mask
    texture = functional.binary_cross_entropy_with_logits(texture_logits, 1 - mask, weight)
    defect = functional.binary_cross_entropy_with_logits(defect_logits, mask, weight)
    return texture + defect


def similarity_loss(texture: Tensor, defect: Tensor) -> Tensor:
    """L_z, eq. 8: mean inner product of the two features (..., d) of each position."""
    return (texture * defect).sum(-1).mean()


def squared_distances(features: Tensor, centers: Tensor) -> Tensor:
    """Squared lengths of the residuals of eq. 9 and 10: (..., K) from features (..., d) and centres (K, d)."""
    return (features[..., None, :] - centers).square().sum(-1)


def soft_assignment(features: Tensor, centers: Tensor, alpha: float = 1.0) -> Tensor:
    """Q, eq. 11: probability that each feature (..., d) belongs to each centre (K, d); (..., K), sums to 1."""
    kernel = (1 + squared_distances(features, centers) / alpha) ** (-(alpha + 1) / 2)
    return kernel / kernel.sum(-1, keepdim=True)


def target_distribution(assignment: Tensor) -> Tensor:
    """P, eq. 15: sharpened assignments (N, K), balanced by the frequency of each centre; detached."""
    weighted = assignment.detach() ** 2 / assignment.detach().sum(0)
    return weighted / weighted.sum(-1, keepdim=True)


def clustering_loss(features: Tensor, centers: Tensor) -> Tensor:
    """Term of one branch in L_kl, eq. 17: KL(P || Q), averaged over the features (..., d)."""
    assignment = soft_assignment(features.flatten(0, -2), centers)
    return functional.kl_div(assignment.log(), target_distribution(assignment), reduction="batchmean")


def center_loss(texture_centers: Tensor, defect_centers: Tensor) -> Tensor:
    """L_td, eq. 18: mean cosine similarity of the texture and defect centres, (K, d) each."""
    cosine = functional.normalize(texture_centers, dim=1) @ functional.normalize(defect_centers, dim=1).T
    return cosine.mean()


def hypersphere_radii(features: Tensor, centers: Tensor) -> Tensor:
    """r_k, eq. 13 and 14: mean distance plus three standard deviations of the features nearest to each centre.

    Args:
        features: Features, shape (N, d).
        centers: Cluster centres, shape (K, d).

    Returns:
        Radii, shape (K,); NaN for a centre that is not the nearest of any feature.
    """
    distances, nearest = squared_distances(features, centers).sqrt().min(-1)
    clusters = [distances[nearest == k] for k in range(len(centers))]
    return torch.stack([cluster.mean() + 3 * cluster.std(correction=0) for cluster in clusters])
