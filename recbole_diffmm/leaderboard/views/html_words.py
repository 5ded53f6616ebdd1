"""How a page says numbers: as many digits as mean something, a real minus sign, a dash for what is not there."""

from __future__ import annotations

from typing import Any

NONE = "–"
_THIN = "\u202f"  # a narrow space that does not break


def metric(value: float | None) -> str:
    """Four decimals, as papers have them."""
    return NONE if value is None else _signed(f"{value:.4f}")


def difference(value: float | None) -> str:
    """Four decimals with a sign."""
    if value is None:
        return NONE
    text = f"{value:+.4f}"
    return "0.0000" if text in {"+0.0000", "-0.0000"} else _signed(text)


def p_value(value: float | None) -> str:
    """``p = 0.012``, or ``p < 0.001`` below what anyone needs to know."""
    if value is None:
        return NONE
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def amount(value: float | None) -> str:
    """A cost: three digits that mean something, thousands set apart."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return _signed(f"{value:,.0f}".replace(",", _THIN))
    return _signed(f"{value:.3g}") if abs(value) >= 0.001 else _signed(f"{value:.1e}")


def percent(value: float | None) -> str:
    """A relative change."""
    if value is None:
        return NONE
    text = f"{100 * value:+.1f}"
    return ("0.0" if text in {"+0.0", "-0.0"} else _signed(text)) + f"{_THIN}%"


def count(value: int | None) -> str:
    """A whole number, thousands set apart."""
    return NONE if value is None else f"{value:,}".replace(",", _THIN)


def setting(value: Any) -> str:
    """A setting as its YAML would say it, more or less."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(setting, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {setting(inner)}' for key, inner in value.items())}}}"
    text = str(value)
    return text if text.strip() == text and text else repr(text)


def _signed(text: str) -> str:
    return text.replace("-", "\u2212")
