"""`bsdenoise presets`: the shipped models, what they are for and what they measured."""

import dataclasses
import json
from typing import Any

from tabulate import tabulate

from bsdenoise import atomic, presets
from bsdenoise.config import PresetsConfig
from bsdenoise.evaluation import references
from bsdenoise.presets import Preset

MEGA, GIGA = 1e6, 1e9
PAPER_PIXELS = 1_200_000 * 256**2  # that the paper's networks were shown


def run(config: PresetsConfig) -> int:
    """Print the table, or all that is known of the presets that are named.

    Raises:
        ValueError: If there is none of a name, or --json names a folder.
        OSError: If the JSON cannot be written.
    """
    if config.json and config.json.is_dir():
        raise ValueError(f"{config.json}: is a folder; --json names a file.")
    found = [presets.get(name) for name in config.names or presets.names()]
    if config.names:
        print("\n\n".join(map(_described, found)))
    else:
        print(table(found))
        for data in dict.fromkeys(preset.data for preset in found):
            print(f"\ntrained on noisy copies, fresh at each visit, of {data}")
        print("bsdenoise presets NAME says more")
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(config.json) as temporary:
            temporary.write_text(json.dumps([_as_dict(preset) for preset in found], indent=1) + "\n")
    return 0


def table(found: list[Preset], form: str = "simple") -> str:
    """Render presets, one a row, and below them what was published.

    Args:
        found: The presets.
        form: Name of a form of tabulate's.
    """
    sets = {key: known.title for key, known in references.SETS.items()}
    header = ["preset", "channels", "sigma", "parameters", "MB", "s/MP", *sets.values(), "gigapixels seen"]
    cells = [
        [
            preset.name,
            preset.channels,
            sigma_range(preset),
            f"{preset.parameters:,}",
            f"{preset.path.stat().st_size / MEGA:.2f}",
            _number(preset.measured.get("seconds_per_megapixel"), ".1f"),
            *(_number(preset.measured.get("psnr", {}).get(key, {}).get("psnr"), ".2f") for key in sets),
            f"{presets.pixels_seen(preset.provenance) / GIGA:.2f}",
        ]
        for preset in found
    ]
    for method, words in {"bm3d": "BM3D, as published", "full": "the paper's network"}.items():
        published = references.PAPER.psnr[method]
        seen = f"{PAPER_PIXELS / GIGA:.2f}" if method == "full" else ""
        cells.append([words, *[""] * 5, *(f"{published[key]:.2f}" for key in sets), seen])
    align = ["left", *["right"] * (len(header) - 1)]
    return tabulate(cells, header, form, colalign=align, disable_numparse=True)


def sigma_range(preset: Preset) -> str:
    """Say for which σ a preset was trained, in grey levels of 8 bits."""
    low, high = preset.noise
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _described(preset: Preset) -> str:
    """Say all that is known of a preset, a line for each thing."""
    size = preset.path.stat().st_size / MEGA
    lines = [
        preset.name,
        f"  {'RGB' if preset.channels > 1 else 'grey'} images with white Gaussian noise, sigma {sigma_range(preset)} "
        "grey levels of 8 bits",
        f"  blind-spot network of width {preset.width} and depth {preset.depth}: {preset.parameters:,} parameters, "
        f"{size:.2f} MB in half precision",
    ]
    lines.append(f"  images: {preset.data}")
    lines += [f"  trained: {_stage(stage)}" for stage in reversed(presets.stages(preset.provenance))]
    measured = preset.measured
    lines += [f"  {_quality(key, facts)}" for key, facts in measured.get("psnr", {}).items()]
    if "seconds_per_megapixel" in measured:
        lines.append(f"  {measured['seconds_per_megapixel']:.1f} s per megapixel in float32 on {measured['machine']}")
    return "\n".join(lines)


def _quality(key: str, facts: dict[str, Any]) -> str:
    """Say in a line what was measured on a test set, and what others reached there."""
    draws = f"{facts['draws']} noise draw{'s' * (facts['draws'] > 1)}"
    line = f"{references.SETS[key].title}, sigma {facts['sigma']:g}, {draws}: {facts['psnr']:.2f} dB"
    if "bm3d" in facts:
        line += f"; BM3D on the same noise ({facts['bm3d_draws']} of the draws): {facts['bm3d']:.2f} dB"
    found = {source.label: source.psnr.get("full", {}).get(key) for source in (references.PAPER, references.FOLLOW_UP)}
    published = [f"{label} {psnr:.2f}" for label, psnr in found.items() if psnr is not None]
    return f"{line}; published for the method: {', '.join(published)}"


def _stage(training: dict[str, Any]) -> str:
    """Say in a line what a training did."""
    side = training["crop"]
    line = (
        f"{training['crops']:,} crops of {side}×{side} from {training['images']:,} images, {training['noise']}, noise "
        f"{training['corrupt']} at each visit, {training['optimizer']}, {training['precision']}"
    )
    if other := training.get("averaged_with"):
        line += f"; {other['share']:.0%} of an earlier model averaged in"
    return line + "; then its colour network was made a grey one" * training.get("made_grey", False)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _as_dict(preset: Preset) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(preset).items() if key != "folder"}
