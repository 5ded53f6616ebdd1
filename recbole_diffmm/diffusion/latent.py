"""A narrow space for the rows of large catalogues."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_ITERATIONS = 4  # power iterations of the randomised SVD


class LatentSpace(nn.Module):
    r"""The span of the leading right singular vectors ``V (I, r)`` of the training matrix, where rows are ``x V``.

    Diffusing item latents instead of item rows is L-DiffRec's answer to large catalogues (Wang et al., SIGIR 2023,
    section 3.3); its clustered variational encoders are replaced by the best linear one, which needs no training and no
    choice of clusters. As ``V`` is orthonormal, noise stays white, and
    :math:`\lVert x_0 - \hat y V^T \rVert^2 = \lVert x_0 V - \hat y \rVert^2 + const`: a denoiser of latents minimises
    DiffMM's own reconstruction error among the rows that the space holds.

    Args:
        user_ids: ``(E,)`` users of the training interactions, ``0..U-1``.
        item_ids: ``(E,)`` items of the training interactions, ``0..I-1``, no pair twice.
        n_users: number of users ``U``.
        n_items: number of items ``I``.
        size: width ``r`` of the space.
    """

    basis: Tensor  # (I, r)

    def __init__(self, user_ids: Tensor, item_ids: Tensor, n_users: int, n_items: int, size: int) -> None:
        super().__init__()
        ones = torch.ones(len(user_ids), device=user_ids.device)
        matrix = torch.sparse_coo_tensor(torch.stack([user_ids, item_ids]), ones, (n_users, n_items)).coalesce()
        # Persistent: the decomposition is drawn at random, and a resumed run must go on in the same space.
        self.register_buffer("basis", torch.svd_lowrank(matrix, q=size, niter=N_ITERATIONS)[2].contiguous())

    @property
    def size(self) -> int:
        """Width ``r`` of the space."""
        return self.basis.shape[1]

    def encode(self, item_ids: Tensor, offsets: Tensor) -> Tensor:
        """Return ``x V (B, r)`` of histories: their items one user after the other, and where each user's begin."""
        return F.embedding_bag(item_ids, self.basis, offsets, mode="sum")

    def encode_columns(self, columns: Tensor) -> Tensor:
        """Return ``V^T F (r, D)`` of something given per item, ``F (I, D)``."""
        return self.basis.t() @ columns

    def decode(self, latent: Tensor) -> Tensor:
        """Return the rows ``y V^T (B, I)`` of latents ``y (B, r)``."""
        return latent @ self.basis.t()
