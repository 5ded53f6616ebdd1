"""LDiffRec trains with RecBole's own encoder, whichever way its first product is computed."""

from __future__ import annotations

import pytest
import torch
from recbole.utils import init_seed
from torch.nn import functional as F

from recbole_diffmm.trainer.ldiffrec import _SparseLinear
from tests.trainer.test_loop import build


def test_values_and_gradients_are_those_of_the_dense_product():
    torch.manual_seed(0)
    rows = torch.zeros(4, 6, dtype=torch.float64)
    rows[0, 5], rows[0, 1], rows[2, 1], rows[3, 0] = 1.0, 2.0, -1.0, 0.5  # the second row is empty
    weight = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(_SparseLinear.apply(rows, weight, bias), F.linear(rows, weight, bias))
    assert torch.autograd.gradcheck(lambda weight, bias: _SparseLinear.apply(rows, weight, bias), (weight, bias))


def test_an_epoch_takes_recboles_steps_and_ranks_alike():
    outcomes = []
    for recboles in (False, True):
        trainer, train_data = build("LDiffRec", train_batch_size=7, dims_dnn=[8], in_dims=[6], learning_rate=0.01)
        first = trainer.model.autoencoder.encoder.mlp_layers[1]
        if recboles:
            del first.forward
        init_seed(3, True)
        losses = trainer._train_epoch(train_data, 0)
        trainer.model.eval()
        batch = next(iter(train_data))
        scores = trainer.model.full_sort_predict(batch).detach()
        outcomes.append([torch.as_tensor(losses), scores, *(p.detach().clone() for p in trainer.model.parameters())])
    for got, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5, check_dtype=False)


def test_clusters_of_items_keep_recboles_encoder(monkeypatch: pytest.MonkeyPatch):
    trainer, _ = build("LDiffRec")
    model = trainer.model
    del model.autoencoder.encoder.mlp_layers[1].forward
    model.n_cate = 2
    type(trainer)(trainer.config, model)
    assert "forward" not in vars(model.autoencoder.encoder.mlp_layers[1])
