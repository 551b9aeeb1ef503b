"""How far does training scale over GPUs? A model on paper: nothing here is measured but the operations counted.

A step of n GPUs takes the time of the slowest part of the computing, then the all-reduce of the gradients in a ring
(Patarasuk and Yuan 2009): every GPU sends 2 (n − 1) / n times the gradients, in 2 (n − 1) messages. Nothing overlaps,
which is the worst case. What TensorFlow itself needs per step (launches of kernels, the input pipeline) is an input,
since it is what a small network feels first.

    python -m benchmarks.scaling_model
"""

import json
from dataclasses import dataclass

import tyro

COUNTS = (1, 2, 4, 8, 16, 64, 256, 1000)
BYTES_PER_GRADIENT = 4  # float32, also where the network computes in bfloat16


@dataclass(frozen=True)
class Config:
    """Computes the efficiency of 1 to 1,000 GPUs."""

    parameters: int = 1_269_129
    """Parameters of the network; the paper's for RGB."""
    gflop_per_crop: float | None = None
    """Forward and backward operations of a crop in 10⁹; by default counted for the paper's network and crops of 256."""
    peak_tflops: float = 989.0
    """Peak of a GPU in 10¹² operations per second: NVIDIA's data sheet of the H100 SXM says 989 for dense bfloat16."""
    share: float = 0.10
    """How much of that peak the network reaches. An assumption: maps of 48 channels do not fill such a GPU."""
    overhead_ms: float = 5.0
    """Time per step that no GPU speeds up, in milliseconds. An assumption."""
    gbits: float = 100.0
    """Link speed between machines in Gbit/s, for each machine."""
    gpus_per_machine: int = 8
    """GPUs that share a machine's link; within it, `local_gbits`."""
    local_gbits: float = 3600.0
    """Link speed of a GPU within its machine: 450 GB/s each way with NVLink 4, says the same data sheet."""
    latency_us: float = 20.0
    """Time of a message besides its bytes, in microseconds. An assumption for Ethernet; InfiniBand has less."""


def allreduce_seconds(config: Config, gpus: int) -> float:
    """Gives the time of a ring over all GPUs, at the speed of its slowest link."""
    if gpus == 1:
        return 0.0
    gbits = config.local_gbits if gpus <= config.gpus_per_machine else min(config.gbits, config.local_gbits)
    num_bytes = 2 * (gpus - 1) / gpus * config.parameters * BYTES_PER_GRADIENT
    return num_bytes * 8 / (gbits * 1e9) + 2 * (gpus - 1) * config.latency_us * 1e-6


def step_seconds(config: Config, gpus: int, crops: float, gflop: float) -> float:
    """Gives the time of a step in which each GPU computes so many crops."""
    computing = crops * gflop * 1e9 / (config.share * config.peak_tflops * 1e12)
    return computing + config.overhead_ms * 1e-3 + allreduce_seconds(config, gpus)


def efficiency(config: Config, gpus: int, crops: float, gflop: float) -> float:
    """Gives crops per second and GPU, as a fraction of those of a single GPU with as many crops per step."""
    return step_seconds(config, 1, crops, gflop) / step_seconds(config, gpus, crops, gflop)


def counted_gflop() -> float:
    """Counts the operations of a training step of the paper's network on one RGB crop of 256×256."""
    from types import SimpleNamespace

    from bsdenoise import GaussianNoise, methods
    from bsdenoise.training import dry_run

    method = methods.get("full")
    network = method.network(channels=3, width=48, depth=5)
    loss = method.loss(3, "prior", GaussianNoise(0.1, 0.1))
    return dry_run.flops(SimpleNamespace(network=network, loss=loss), 256, 3, 4) / 1e9


def main() -> None:
    """Prints a row per number of GPUs, and all as JSON."""
    config = tyro.cli(Config, description=__doc__)
    gflop = config.gflop_per_crop if config.gflop_per_crop is not None else counted_gflop()
    print(f"{gflop:.0f} GFLOP per crop; {config.parameters * BYTES_PER_GRADIENT / 1e6:.2f} MB of gradients per step\n")
    print(
        "| GPUs | all-reduce, ms | efficiency, 4 crops per GPU | 32 crops per GPU | updates in 1.2 M crops, 4 per GPU |"
    )
    print("| --- | --- | --- | --- | --- |")
    rows = []
    for gpus in COUNTS:
        row = {
            "gpus": gpus,
            "allreduce_ms": 1e3 * allreduce_seconds(config, gpus),
            "efficiency_4": efficiency(config, gpus, 4, gflop),
            "efficiency_32": efficiency(config, gpus, 32, gflop),
            "updates": 1_200_000 // (4 * gpus),
        }
        rows.append(row)
        print(
            f"| {gpus} | {row['allreduce_ms']:.2f} | {row['efficiency_4']:.2f} | {row['efficiency_32']:.2f} | "
            f"{row['updates']:,} |"
        )
    print(json.dumps({"rows": rows, "gflop_per_crop": gflop, "inputs": vars(config)}))


if __name__ == "__main__":
    main()
