"""RecBole's ADMMSLIM with a limit to the matrices that it makes of a catalogue."""

from __future__ import annotations

from typing import Any

from recbole.model.general_recommender import ADMMSLIM as RecBoleADMMSLIM

from recbole_diffmm.checks import require_room
from recbole_diffmm.errors import UserError


class ADMMSLIM(RecBoleADMMSLIM):  # type: ignore[misc]
    """RecBole's ADMMSLIM (WSDM 2020, doi 10.1145/3336191.3371774) up to ``max_items`` items.

    ``center_columns: true`` makes a matrix of all users and all items too, of ``max_items`` squared entries at most.

    Raises:
        UserError: there are more items, or too many users for that.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        users, items, limit = dataset.user_num - 1, dataset.item_num - 1, config["max_items"]
        # The inverse in float64 with its copy, and the matrices of the iterations in float32.
        require_room("ADMMSLIM", items, limit, 48, "ItemKNN")
        if config["center_columns"] and users * items > limit**2:
            raise UserError(
                f"center_columns=true in {config.source('center_columns')}: ADMMSLIM makes a matrix of all users and "
                f"all items, {users:,} x {items:,} here, more than max_items={limit} squared; leave it out, or raise "
                "max_items if the memory is there"
            )
        super().__init__(config, dataset)
