"""`workbench model describe` and `workbench tokens`, through their own parsers."""

from __future__ import annotations

import argparse

import pytest

from tests.models import worlds
from workbench.cli import model as commands
from workbench.errors import CheckpointError, RecipeError
from workbench.models.tempflex import save_tempflex


def call(*argv):
    parser = argparse.ArgumentParser()
    commands.register(parser.add_subparsers(dest="group"))
    args = parser.parse_args(argv)
    return args.func(args)


def rows(text):
    table = (line.split() for line in text.splitlines() if line.startswith("  "))
    return {cells[0]: cells[1:] for cells in table if cells and cells[0] not in ("group", "encoding")}


def test_tokens_table(capsys):
    assert call("tokens", "1280x720") == 0
    table = rows(capsys.readouterr().out)
    assert table["fixed"] == ["384x384", "576", "144", "144", "576"]
    assert table["tiled"] == ["1152x768", "4,032", "1,008", "1,008", "4,032"]
    assert table["native"] == ["1280x736", "3,680", "920", "920", "900"]
    call("tokens", "768x768", "--frames", "64", "--pool-to", "32", "--newline")
    assert rows(capsys.readouterr().out)["native"] == ["768x768", "2,304", "576", f"{32 * 577:,}", "576"]
    call("tokens", "1448x1448")
    assert rows(capsys.readouterr().out)["native"][-1] == "2,048"


@pytest.mark.parametrize(
    "argv", [["1280"], ["0x5"], ["ax3"], ["64x64", "--frames", "0"], ["64x64", "--pool-to", "0"]]
)
def test_bad_sizes(argv):
    with pytest.raises(RecipeError, match="workbench tokens"):
        call("tokens", *argv)


def test_describe_preset_and_checkpoint(capsys, tmp_path):
    call("model", "describe", "tiny")
    table = rows(capsys.readouterr().out)
    assert table["encoder"][0] == "113,472" and table["fusion"][0] == "0"
    model, processor = worlds.model(variant="release")
    save_tempflex(model, processor, tmp_path)
    call("model", "describe", str(tmp_path))
    table = rows(capsys.readouterr().out)
    assert (
        table["total"][0] == f"{sum(p.numel() for p in model.parameters()):,}"
        and "release" in table["fusion"]
    )
    with pytest.raises(RecipeError, match="tempflex-qwen3-4b"):
        call("model", "describe", "no-such-model")
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match="cut short"):
        call("model", "describe", str(tmp_path))


def test_describe_a_full_model(capsys):
    call("model", "describe", "tempflex-qwen3-4b")
    assert rows(capsys.readouterr().out)["fusion"][0] == f"{4 * 21_250_947:,}"
