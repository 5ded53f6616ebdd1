"""One recorded problem of the reference, and DiffMM set up on it through RecBole's padded ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_diffmm.data.modality import ModalityFeatures
from recbole_diffmm.model.base import module_key
from recbole_diffmm.model.diffmm import DiffMM
from tests.splits import recbole_keys, training_split

FILES = ("m2_trans0", "m3_trans1", "m2_trans1_deep")
PROJECTIONS = {0: "leaky_matrix", 1: "linear"}


class Problem:
    """Arrays of one fixture as tensors, its sizes, and what RecBole would hand to a model."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        with np.load(path, allow_pickle=False) as archive:
            self.config = json.loads(str(archive["config"]))
            arrays = {key: torch.from_numpy(archive[key].copy()) for key in archive.files if key != "config"}
        self.arrays = {key: array.to(self.device) for key, array in arrays.items()}
        self.modalities: list[str] = self.config["modalities"]
        self.n_users, self.n_items = self.config["U"], self.config["I"]

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.arrays[key]

    @property
    def everyone(self) -> torch.Tensor:
        """All users ``(U,)``."""
        return torch.arange(self.n_users, device=self.device)

    def dataset(self) -> Any:
        """A training split in RecBole's ids, on the CPU: PAD first, everything else shifted by one."""
        observed = torch.arange(self.n_items + 1) > 0
        modalities = {
            name: ModalityFeatures(name, torch.nn.functional.pad(self[f"feat_{name}"].cpu(), (0, 0, 1, 0)), observed)
            for name in self.modalities
        }
        users, items = self["train_user"].cpu(), self["train_item"].cpu()
        return training_split(self.n_users, self.n_items, users, items, modalities)

    def model(self, **overrides: Any) -> DiffMM:
        """DiffMM with the fixture's settings, parameters and generated graphs."""
        c = self.config
        values: dict[str, Any] = {
            "embedding_size": c["latdim"],
            "n_layers": c["gnn_layer"],
            "projection": PROJECTIONS[c["trans"]],
            "cl_weight": c["ssl_reg"],
            "temperature": c["temp"],
            "reg_weight": c["reg"],
            "residual_weight": c["ris_lambda"],
            "generated_graph_weight": c["ris_adj_lambda"],
            "edge_dropout": 1.0 - c["keepRate"],
            "rebuild_k": c["rebuild_k"],
            "msi_weight": c["e_loss"],
            "denoiser_hidden_sizes": c["dims_list"],
            "time_embedding_size": c["d_emb_size"],
            "normalize_input": c["norm"],
            "steps": c["steps"],
            "noise_scale": c["noise_scale"],
            "noise_min": c["noise_min"],
            "noise_max": c["noise_max"],
            "train_batch_size": c["B"],
            "precision": "fp32",
            **recbole_keys(),
            "device": self.device,
            **overrides,
        }
        model = DiffMM(values, self.dataset()).to(self.device)
        with torch.no_grad():
            model.user_embedding.copy_(self["param_uEmbeds"])
            model.item_embedding.copy_(self["param_iEmbeds"])
            model.modal_weight.copy_(self["param_modal_weight"])
            for name in self.modalities:
                for theirs, ours in projection_names(name, c["trans"]).items():
                    model.get_parameter(ours).copy_(self[f"param_{theirs}"])
                load_denoiser(model.denoiser(name), self)
                model.set_generated_items(name, self[f"gen_item_{name}"])
        return model


def projection_names(modality: str, trans: int) -> dict[str, str]:
    """The reference's parameter names of one projection, and ours."""
    if trans == 0:
        return {f"{modality}_trans": f"projections.{module_key(modality)}.weight"}
    return {f"{modality}_trans.{part}": f"projections.{module_key(modality)}.{part}" for part in ("weight", "bias")}


# The reference's names of a denoiser's parameters, ours, and the columns of theirs that ours holds.
def denoiser_names(n_items: int) -> dict[str, tuple[str, slice | None]]:
    """Our parameter names, each with the reference's and the columns of it that ours holds (None: all of it)."""
    return {
        "time_layer.weight": ("emb_layer.weight", None),
        "time_layer.bias": ("emb_layer.bias", None),
        "input_layer.weight": ("in_layers.0.weight", slice(0, n_items)),
        "input_time_layer.weight": ("in_layers.0.weight", slice(n_items, None)),
        "input_layer.bias": ("in_layers.0.bias", None),
        "layers.0.weight": ("out_layers.0.weight", None),
        "layers.0.bias": ("out_layers.0.bias", None),
    }


def load_denoiser(denoiser: torch.nn.Module, problem: Problem) -> None:
    """Give a denoiser the recorded weights."""
    with torch.no_grad():
        for ours, (theirs, columns) in denoiser_names(problem.n_items).items():
            value = problem[f"denoise_{theirs}"]
            denoiser.get_parameter(ours).copy_(value if columns is None else value[:, columns])
