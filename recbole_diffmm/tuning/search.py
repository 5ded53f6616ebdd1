"""What is to be searched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A trial is pruned where it is, after twice the patience, among the worst quarter of all that have ended: before, and
# among more of them, a curve says how fast a setting learns and not how far it gets (benchmarks/pruning.py).
PATIENCES = 2
WORST = 25.0  # per cent
# The attribute of a study that has the best settings of an earlier search, empty without one.
EARLIER = "earlier"
# A search shows one bar and leaves no checkpoint; none of these keys can move a number.
QUIET: dict[str, Any] = {"state": "WARNING", "show_progress": False, "tensorboard": False, "resume_every": 0}


def patience_in_epochs(config: Any) -> int:
    """Epochs without a better score that end a training: RecBole counts validations, which are `eval_step` apart."""
    return int(config["stopping_step"]) * min(int(config["eval_step"]), int(config["epochs"]))


@dataclass(frozen=True)
class Search:
    """What is to be searched.

    Attributes:
        model: Name of the model.
        dataset: Name of the dataset.
        trials: The budget, in settings tried.
        label: Name of the search and its files, before the dataset's; the model's name by default.
        config_files: YAML files that hold for all trials.
        settings: Settings that hold for all trials and win over the files.
        space: File of the ranges; `properties/tune/<Model>.yaml` by default.
        seed: Of the sampler.
        minutes: No trial begins once those before have trained for so long together; None for no such end.
        finalists: How many of the best settings are trained again with other seeds, of which the best mean wins; 1 for
            the best by the search's own seed.
    """

    model: str
    dataset: str
    trials: int
    label: str = ""
    config_files: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    space: Path | None = None
    seed: int = 0
    minutes: float | None = None
    finalists: int = 1

    @property
    def name(self) -> str:
        """Name of the study and of its files."""
        return f"{self.label or self.model}-{self.dataset}"
