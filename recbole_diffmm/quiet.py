"""What libraries tell their developers and their users need not read."""

from __future__ import annotations

import warnings


def quiet_libraries() -> None:
    """Silence what PyTorch and pandas tell RecBole's developers and its user cannot act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    warnings.filterwarnings("ignore", category=Warning, message=r".*chained assignment.*", module=r"recbole\.")
    warnings.filterwarnings("ignore", category=UserWarning, message=r".*torch\.sparse\.\w*Tensor.*")
    warnings.filterwarnings("ignore", category=UserWarning, message=r".*[Ss]parse CSR.*beta.*")
