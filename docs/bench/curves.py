"""Makes fedkd/privacy/curves.json, which `fedkd privacy plan` reads, of privacy.json."""

import inspect
import json
from pathlib import Path

from fedkd.cli.bench.privacy import CELLS
from fedkd.privacy.mechanisms.dp_training import dp_training

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / "fedkd" / "privacy" / "curves.json"
NAMES = {
    "heart_disease": "Heart disease, four hospitals",
    "breast_cancer": "Breast cancer, one site",
    "fashion_mnist": "Fashion-MNIST, four sites of 6,000, linear",
    "fashion_mnist_cnn": "Fashion-MNIST, four sites of 6,000, small CNN",
}


def curves(kept: dict) -> dict:
    """The curves, by the name that `--like` takes."""
    cells = kept["results"]["utility"]
    return {
        "version": 2,
        "commit": kept["commit"],
        "command": kept["command"],
        "curves": {name: _curve(title, cells[title]) for name, title in NAMES.items()},
    }


def _curve(title: str, cell: dict) -> dict:
    return {
        "title": title,
        "measure": cell["measure"],
        "classes": cell["classes"],
        "models": cell["model"],
        "patients": list(cell["patients"].values()),
        "seeds": cell["seeds"],
        **_training(title),
        "points": [
            {
                "epsilon": None if epsilon == "none" else float(epsilon),
                "mean": round(spread["mean"], 4),
                "sd": None if spread["sd"] is None else round(spread["sd"], 4),
            }
            for epsilon, spread in cell["by_epsilon"].items()
        ],
    }


def _training(title: str) -> dict:
    """The steps of a private model, and who is in one: what the bench sets, else the default."""
    (set_here,) = [
        dict(it.split("=", 1) for it in one.private) for one in CELLS if one.name == title
    ]
    default = inspect.signature(dp_training).parameters
    return {
        "steps": int(set_here.get("mechanism.steps", default["steps"].default)),
        "sampling_rate": float(
            set_here.get("mechanism.sampling_rate", default["sampling_rate"].default)
        ),
    }


if __name__ == "__main__":
    made = curves(json.loads((HERE / "privacy.json").read_text()))
    KEPT.write_text(json.dumps(made, indent=2) + "\n")
