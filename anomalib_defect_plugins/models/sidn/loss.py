"""Losses of SIDN: segmentation (eq. 5) and feature separation (eq. 8 to 19).

The paper prints L_s and L_kl as sums and L_z and L_td as means. Means are the default here, because the weight of a sum
over pixels or features depends on the size of the images and of the batch; ``printed`` selects the sums.
"""

from warnings import catch_warnings, simplefilter

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.nn import functional

DISTANCE_SCALE = 20.0
"""Factor on the squared distances of features of unit length, which are at most 4 and leave Q nearly uniform."""

EASY_SHARE = 0.01
"""Least share of the normal pixels of an image that count as hard."""


def segmentation_loss(
    texture_logits: Tensor,
    defect_logits: Tensor,
    mask: Tensor,
    texture_weight: float = 0.1,
    hard_ratio: float | None = None,
    printed: bool = False,
) -> Tensor:
    """L_s, eq. 5: cross-entropy of both segmentations, with a lower weight on texture pixels.

    Args:
        texture_logits: Logits of I_s^t, shape (B, 1, H, W).
        defect_logits: Logits of I_s^d, shape (B, 1, H, W).
        mask: I_m, shape (B, 1, H, W), 1 on defects.
        texture_weight: lambda_1.
        hard_ratio: Normal pixels of an image that count, the ones with the highest losses, as a multiple of its defect
            pixels, and at least ``EASY_SHARE`` of them; ``texture_weight`` is not applied to them. ``None`` counts all.
        printed: Whether to sum over pixels, as in the paper, instead of averaging.
    """
    mask = mask.to(texture_logits)
    texture = functional.binary_cross_entropy_with_logits(texture_logits, 1 - mask, reduction="none")
    defect = functional.binary_cross_entropy_with_logits(defect_logits, mask, reduction="none")
    if hard_ratio is not None:
        images = zip(texture + defect, mask.bool(), strict=True)
        return torch.stack([_hard_mean(loss, defective, hard_ratio) for loss, defective in images]).mean()
    weighted = (texture_weight * (1 - mask) + mask) * (texture + defect)
    return weighted.sum() / len(mask) if printed else weighted.mean()


def _hard_mean(loss: Tensor, mask: Tensor, ratio: float) -> Tensor:
    """Average the loss of the defect pixels and that of the hardest normal ones with the weight of their numbers."""
    defect, normal = loss[mask], loss[~mask]
    count = min(len(normal), max(int(ratio * len(defect)), int(EASY_SHARE * len(normal)), 1))
    return torch.cat([defect, normal.topk(count).values]).mean()


def similarity_loss(texture: Tensor, defect: Tensor) -> Tensor:
    """L_z, eq. 8: mean inner product of the two features (..., d) of each position."""
    return (texture * defect).sum(-1).mean()


def squared_distances(features: Tensor, centers: Tensor) -> Tensor:
    """Squared lengths of the residuals of eq. 9 and 10: (..., K) from features (..., d) and centres (K, d)."""
    return (features[..., None, :] - centers).square().sum(-1)


def soft_assignment(features: Tensor, centers: Tensor, alpha: float = 1.0, scale: float = 1.0) -> Tensor:
    """Q, eq. 11: probability that each feature belongs to each centre.

    Args:
        features: Features, shape (..., d).
        centers: Cluster centres, shape (K, d).
        alpha: Degrees of freedom of Student's t.
        scale: Factor on the squared distances; the paper has none, see ``DISTANCE_SCALE``.

    Returns:
        Probabilities, shape (..., K), which sum to 1.
    """
    kernel = (1 + scale * squared_distances(features, centers) / alpha) ** (-(alpha + 1) / 2)
    return kernel / kernel.sum(-1, keepdim=True)


def target_distribution(assignment: Tensor) -> Tensor:
    """P, eq. 15: sharpened assignments (N, K), balanced by the frequency of each centre; detached."""
    weighted = assignment.detach() ** 2 / assignment.detach().sum(0)
    return weighted / weighted.sum(-1, keepdim=True)


def clustering_loss(features: Tensor, centers: Tensor, scale: float = 1.0, printed: bool = False) -> Tensor:
    """Term of one branch in L_kl, eq. 17: KL(P || Q).

    Args:
        features: Features, shape (..., d), of unit length.
        centers: Cluster centres, shape (K, d).
        scale: As in :func:`soft_assignment`.
        printed: Whether to sum over the features, as in the paper, instead of averaging.
    """
    assignment = soft_assignment(features.flatten(0, -2), centers, scale=scale)
    reduction = "sum" if printed else "batchmean"
    return functional.kl_div(assignment.log(), target_distribution(assignment), reduction=reduction)


def center_loss(texture_centers: Tensor, defect_centers: Tensor) -> Tensor:
    """L_td, eq. 18: mean cosine similarity of the texture and defect centres, (K, d) each.

    Negative cosines count as 0: the centres are to be unlike each other, and the lowest mean is that of two opposite
    points, each with all centres of a branch.
    """
    return cosines(texture_centers, defect_centers).clamp(min=0).mean()


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarities (K, L) of vectors (K, d) and (L, d)."""
    return functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T


def start_centers(features: Tensor, count: int) -> Tensor:
    """Compute the first centres with k-means, which starts from features that are far from each other.

    Args:
        features: Features, shape (N, d), on any device.
        count: Number of centres K; if there are fewer different features, some centres are equal.

    Returns:
        Centres, shape (K, d), on the CPU.
    """
    features = features.float().cpu()
    chosen = [features[0]]
    distances = squared_distances(features, features[:1])[:, 0]
    while len(chosen) < count:
        chosen.append(features[distances.argmax()])
        distances = torch.minimum(distances, squared_distances(features, chosen[-1][None])[:, 0])
    with catch_warnings():
        simplefilter("ignore")  # centres without features keep their places
        centers, _ = kmeans2(features.numpy(), torch.stack(chosen).numpy(), minit="matrix")
    return torch.from_numpy(centers)


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
