"""How many devices a number of classes needs, and what then limits a step.

``python -m softmax_bench.parallel.plan --page docs/parallel.md`` updates the page's table.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import Cost
from softmax_bench.ops.cpu.softmax_loss import token_blocks
from softmax_bench.parallel import cost
from softmax_bench.parallel.cost import Sent, Step

BEGIN = (
    "<!-- Made by python -m softmax_bench.parallel.plan --page docs/parallel.md: do not edit. -->"
)
END = "<!-- End of what is made. -->"
CLASSES = (10**6, 10**7, 10**8)
DEVICES = (1, 4, 16, 64)


@dataclass(frozen=True)
class Device:
    """The capabilities of a device: rates that are reached, not those of a data sheet."""

    memory: float = 80e9
    """Bytes."""
    flops: float = 100e12
    """Floating-point operations per second, in products."""
    memory_bandwidth: float = 1.5e12
    """Bytes per second."""
    network_bandwidth: float = 25e9
    """Bytes per second that a device sends while receiving as many."""
    latency: float = 40e-6
    """Seconds that an exchange takes, however little is sent."""


@dataclass(frozen=True)
class Work:
    """The layer and the training step to plan."""

    classes: int
    devices: int
    samples: int | None
    """Samples of sampled softmax; None for full softmax."""
    tokens: int = 1024
    """Targets per step and device."""
    width: int = 512
    """Size H of a hidden state."""
    state: int = 1
    """Numbers that the optimiser stores per parameter: 1 for Adagrad, 2 for Adam, 0 for SGD."""


@dataclass(frozen=True)
class Plan:
    """One device's share of a step of the output layer."""

    parameters: float
    """In bytes, like all memory here."""
    gradients: float
    optimizer: float
    activations: float
    """Hidden states of all devices, their gradients, and scratch."""
    compute_seconds: float
    memory_seconds: float
    network_seconds: float

    @property
    def memory(self) -> float:
        """Bytes held at the peak."""
        return self.parameters + self.gradients + self.optimizer + self.activations

    @property
    def bound(self) -> str:
        """What takes longest, and so bounds the step even if everything overlaps."""
        seconds = {
            "compute": self.compute_seconds,
            "memory": self.memory_seconds,
            "network": self.network_seconds,
        }
        return max(seconds, key=lambda name: seconds[name])

    @property
    def seconds(self) -> float:
        """Lower bound of the seconds of a step."""
        return max(self.compute_seconds, self.memory_seconds, self.network_seconds)


def plan(work: Work, device: Device) -> Plan:
    """The share of one of the devices, by the formulas of the layers' cost.

    Raises:
        SoftmaxBenchError: A number is not positive.
    """
    if min(work.classes, work.devices, work.tokens, work.width, work.samples or 1) < 1:
        raise SoftmaxBenchError("classes, devices, samples, tokens and width must be positive")
    step = Step(
        tokens=work.tokens * work.devices,
        rows=-(-work.classes // work.devices),
        width=work.width,
        processes=work.devices,
        divided=True,
    )
    costs, sent, scored = _full(step) if work.samples is None else _sampled(step, work.samples)
    number = step.number_bytes
    touched = costs.rows_touched * (work.width + 1)
    parameters = float(costs.parameters * number)
    blocks = [block.stop - block.start for block in token_blocks(step.tokens, scored)]
    # Each block of tokens reads the rows once and adds to their gradient, which is read and
    # written. Then the optimiser reads gradient, parameter and state, and writes the last two.
    moved = 3 * len(blocks) * scored * work.width + (3 + 2 * work.state) * touched
    network = 0.0
    if work.devices > 1:
        network = sent.bytes / device.network_bandwidth + sent.exchanges * device.latency
    return Plan(
        parameters=parameters,
        gradients=float(costs.gradient_bytes),
        optimizer=work.state * parameters,
        activations=float(number * (2 * step.tokens * work.width + max(blocks) * scored)),
        compute_seconds=costs.flops / device.flops,
        memory_seconds=number * moved / device.memory_bandwidth,
        network_seconds=network,
    )


def _full(step: Step) -> tuple[Cost, Sent, int]:
    return cost.full(step), cost.softmax_traffic(step, step.rows), step.rows


def _sampled(step: Step, samples: int) -> tuple[Cost, Sent, int]:
    here = math.ceil(samples / step.processes)
    sent = cost.softmax_traffic(step, here) + cost.noise_traffic(step, samples)
    return cost.sampled(step, samples), sent, here


def markdown(device: Device, samples: int = 8192) -> str:
    """The table of the page."""
    work = Work(1, 1, None)
    lines = [
        f"Each device gives {work.tokens:,} targets per step, H = {work.width}, float32, Adagrad; "
        f"sampled softmax has {samples:,} classes per step in all. A device has "
        f"{device.memory / 1e9:.0f} GB, {device.flops / 1e12:.0f} TFLOP/s in products, "
        f"{device.memory_bandwidth / 1e12:.1f} TB/s of memory, and sends "
        f"{device.network_bandwidth / 1e9:.0f} GB/s; an exchange takes at least "
        f"{1e6 * device.latency:.0f} µs.",
        "",
        "| classes | layer | devices | GB per device | fits | compute ms | memory ms | network ms "
        "| bound by | million targets/s, at most |",
        "| ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for classes in CLASSES:
        for name, drawn in (("full", None), ("sampled", samples)):
            for devices in DEVICES:
                work = Work(classes, devices, drawn)
                lines.append(_row(name, work, plan(work, device), device))
    return "\n".join(lines) + "\n"


def _row(name: str, work: Work, planned: Plan, device: Device) -> str:
    rate = work.tokens * work.devices / planned.seconds
    cells = [
        f"{work.classes:,}",
        f"`{name}`",
        str(work.devices),
        f"{planned.memory / 1e9:.3g}",
        "yes" if planned.memory < device.memory else "no",
        f"{1e3 * planned.compute_seconds:.3g}",
        f"{1e3 * planned.memory_seconds:.3g}",
        f"{1e3 * planned.network_seconds:.3g}",
        planned.bound,
        f"{rate / 1e6:.3g}",
    ]
    return f"| {' | '.join(cells)} |"


def with_table(page: str, table: str) -> str:
    """Replace the table between the page's marks.

    Raises:
        SoftmaxBenchError: The page has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SoftmaxBenchError(f"the page must have the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def main() -> None:
    """Print the table for a device, or write it into the page."""
    parser = argparse.ArgumentParser(
        prog="python -m softmax_bench.parallel.plan", description=__doc__
    )
    parser.add_argument("--page", type=Path, help="write it into this page")
    parser.add_argument("--samples", type=int, default=8192)
    defaults = Device()
    for name, unit in (
        ("memory", "bytes"),
        ("flops", "operations per second"),
        ("memory_bandwidth", "bytes per second"),
        ("network_bandwidth", "bytes per second"),
        ("latency", "seconds of an exchange"),
    ):
        option = f"--{name.replace('_', '-')}"
        default = getattr(defaults, name)
        parser.add_argument(option, type=float, default=default, help=f"{unit} (%(default)g)")
    options = vars(parser.parse_args())
    page, samples = options.pop("page"), options.pop("samples")
    table = markdown(Device(**options), samples)
    if page is None:
        print(table, end="")
    else:
        page.write_text(with_table(page.read_text(encoding="utf-8"), table), encoding="utf-8")


if __name__ == "__main__":
    main()
