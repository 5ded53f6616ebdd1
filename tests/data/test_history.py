"""Rows of the training matrix against the dense matrix they stand for."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recbole_diffmm.data.history import History

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_rows_equal_the_dense_matrix(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randint(0, 7, (40,), generator=generator), torch.randint(0, 11, (40,), generator=generator)
    keep = users != 3  # a user without history
    users, items = users[keep], items[keep]
    dense = torch.zeros(8, 11)  # the last user has none either
    dense[users, items] = 1
    history = History(users.to(device), items.to(device), 8, 11)
    assert history.col_indices.numel() == int(dense.sum()), "a repeated interaction counts once"
    batch = torch.tensor([6, 3, 0, 7, 6], device=device)
    assert torch.equal(history.rows(batch).cpu(), dense[batch.cpu()])
    embedding = torch.randn(11, 4, generator=generator)
    columns, offsets = history.sparse_rows(batch)
    sums = F.embedding_bag(columns, embedding.to(device), offsets, mode="sum")
    torch.testing.assert_close(sums.cpu(), dense[batch.cpu()] @ embedding)


def test_no_interaction_and_no_user() -> None:
    empty = torch.empty(0, dtype=torch.int64)
    assert not History(empty, empty, 3, 5).rows(torch.arange(3)).any()
    history = History(torch.tensor([0]), torch.tensor([4]), 1, 5)
    assert history.rows(empty).shape == (0, 5)


def test_nothing_of_it_goes_into_a_checkpoint() -> None:
    assert not History(torch.tensor([0]), torch.tensor([4]), 1, 5).state_dict()
