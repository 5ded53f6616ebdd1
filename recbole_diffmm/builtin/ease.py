"""RecBole's EASE with a limit to the catalogue that it inverts a matrix of."""

from __future__ import annotations

from typing import Any

from recbole.model.general_recommender import EASE as RecBoleEASE

from recbole_diffmm.checks import require_room


class EASE(RecBoleEASE):  # type: ignore[misc]
    """RecBole's EASE (WWW 2019, arXiv 1905.03375); ``max_items`` is the largest catalogue that it is fitted to.

    Raises:
        UserError: there are more items.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        # RecBole's form holds about eight matrices of 4 I^2 bytes at its peak.
        require_room("EASE", dataset.item_num - 1, config["max_items"], 32, "ItemKNN")
        super().__init__(config, dataset)
