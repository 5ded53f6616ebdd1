"""The epoch's benchmark runs all variants on the same data, and its report says what was measured."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_diffmm.data.toy import MODALITIES, N_ITEMS, N_USERS
from tests.benchmarks.conftest import load_script

SETTINGS = {
    "embedding_size": 8,
    "denoiser_hidden_sizes": [16],
    "time_embedding_size": 4,
    "denoiser_batch_size": 256,
    "train_batch_size": 256,
    "steps": 3,
}
EPOCH = ["denoisers", "generation", "ranking", "evaluation"]
PHASES = [*EPOCH, "total", "test", "all_users"]


@pytest.fixture(scope="module")
def epoch(repository: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "benchmarks"))  # where it finds plain.py, as a script does
        module = load_script(repository, "epoch")
        patch.setattr(module, "GEMM_SIZE", {"cpu": 128})
        yield module


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return [f"--config_files={path}", "--dataset=toy", "--device=cpu", "--repeats=1"]


@pytest.fixture
def job(arguments: list[str], tmp_path: Path) -> dict[str, Any]:
    """One run of the same as `arguments`, its variant left open."""
    return {
        "dataset": "toy",
        "config_files": [str(tmp_path / "tiny.yaml")],
        "values": {"use_gpu": False},
        "settings": {},
        "epochs": 1,
        "threads": None,
        "first": False,
    }


@pytest.fixture
def in_this_process(epoch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing everything takes a process far longer than the toy's epoch."""
    monkeypatch.setattr(epoch, "spawn", lambda job: epoch.execute(job))


@pytest.mark.usefixtures("in_this_process")
def test_report(epoch: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    variants = ["plain", "fast", "deep-fp32:denoiser_hidden_sizes=[8,16],precision=fp32"]
    assert epoch.main([*arguments, "--epochs=2", "--out=report.json", "--variants", *variants]) == 0
    report = json.loads(Path("report.json").read_text())
    assert list(report["variants"]) == ["plain", "fast", "deep-fp32"]
    assert report["settings"]["deep-fp32"] == {"denoiser_hidden_sizes": [8, 16], "precision": "fp32"}
    for values in report["variants"].values():
        assert sorted(values["seconds"]) == sorted(values["gflop"]) == sorted(PHASES)
        for phase, seconds in values["seconds_of_each_epoch"].items():
            assert len(seconds) == 2 and min(seconds) > 0, "the epoch that warms up is not counted"
            assert values["seconds"][phase] == statistics.median(seconds)
            assert values["gflop_per_s"][phase] == pytest.approx(values["gflop"][phase] / values["seconds"][phase])
        each = values["seconds_of_each_epoch"]
        assert each["total"] == pytest.approx([sum(parts) for parts in zip(*(each[p] for p in EPOCH), strict=True)])
        assert values["users_ranked_per_s"]["all_users"] == pytest.approx(N_USERS / values["seconds"]["all_users"])
        assert values["peak_memory_mb"]["host"] > 50
    for name, ratios in report["ratios"].items():
        for key in ("seconds", "peak_memory_mb"):
            for part, ratio in ratios[key].items():
                base, other = (report["variants"][v][key][part] for v in ("plain", name))
                assert ratio == pytest.approx(base / other)
    assert report["variants"]["deep-fp32"]["precision"] == "fp32"
    assert report["gemm_gflop_per_s"].keys() == {"fp32", "bf16"}
    assert report["threads"] >= 1 and report["versions"]["torch"]
    assert not Path("saved").exists() and not Path("log_tensorboard").exists(), "nothing is left beside the report"
    shown = capsys.readouterr()
    for phase in PHASES:
        assert shown.out.count(f"\n{phase} ") == len(variants)
    assert "peak memory of fast" in shown.out and "run 1 of 1, plain" in shown.err


def test_variants_have_the_same_data_and_settings(epoch: Any, job: dict[str, Any]) -> None:
    plain, fast = (epoch.execute({**job, "variant": name, "first": True}) for name in ("plain", "fast"))
    assert plain["data"] == fast["data"]
    assert plain["data"]["users"] == N_USERS and plain["data"]["items"] == N_ITEMS
    assert plain["ranked_users"] == fast["ranked_users"] == dict.fromkeys(["evaluation", "test", "all_users"], N_USERS)
    settings = epoch.plain_settings(epoch.build_config(job))
    assert (settings.hidden_size, settings.batch_size, settings.steps, settings.embedding_size) == (16, 256, 3, 8)
    # Counted by hand; the graphs' sparse products would be more than all of these.
    per_user = settings.steps * 2 * (16 * (N_ITEMS + 4) + N_ITEMS * 16 + 4 * 4)
    assert plain["gflop"]["generation"] == pytest.approx(len(MODALITIES) * N_USERS * per_user / 1e9)
    widths = sum(width for width, *_ in MODALITIES.values())
    scoring = 2 * N_ITEMS * 8 * (widths + N_USERS) / 1e9
    assert plain["gflop"]["evaluation"] == plain["gflop"]["all_users"] == pytest.approx(scoring)
    assert fast["gflop"]["generation"] < plain["gflop"]["generation"], "the reverse steps stay in hidden space"


def test_a_run_is_a_process(epoch: Any, job: dict[str, Any]) -> None:
    result = epoch.spawn({**job, "variant": "fast"})
    assert result["data"]["users"] == N_USERS and len(result["seconds"]) == 1


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        (["fats"], "cannot read variant 'fats'"),
        (["plain:precision=fp32"], "cannot read variant 'plain:precision=fp32'"),
        (["wide:16"], "cannot read variant 'wide:16'"),
        (["wide:denoiser_hiden_sizes=[16]"], "denoiser_hidden_sizes"),
        (["fast", "fast"], "given twice"),
    ],
)
def test_a_bad_variant_is_one_line(
    epoch: Any, arguments: list[str], variants: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert epoch.main([*arguments, "--variants", *variants]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and shown.err.startswith("error: ") and told in shown.err
    assert not shown.out


def test_plain_refuses_what_it_does_not_have(
    epoch: Any, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**SETTINGS, "denoiser_batch_size": 64}))
    assert epoch.main(arguments) == 2
    assert "denoiser_batch_size=64" in capsys.readouterr().err
