"""Says which models may answer under which mechanism: found out by asking the code itself."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fedkd.cli.configuration import build, options, part, with_user_code
from fedkd.federation.speaking import check_speaker
from fedkd.knowledge import BadInput
from fedkd.privacy import Mechanism

DONE = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Whether a model may answer under a mechanism, and if not, why not and what to do."""

    model: str
    mechanism: str
    may: bool
    reason: str = ""
    remedy: str = ""


def speakers(*, config_dir: Path | None, as_json: bool) -> int:
    """Prints every model against every mechanism; a `config_dir` adds its own of both."""
    if config_dir is not None:
        with_user_code(config_dir)
    mechanisms = _mechanisms(config_dir)
    pairs = [
        _asked(name, model, mechanism)
        for name, model in _models(config_dir).items()
        for mechanism in mechanisms.values()
    ]
    if as_json:
        print(json.dumps([asdict(pair) for pair in pairs], indent=2))
        return DONE
    _show(pairs, list(mechanisms))
    return DONE


def _mechanisms(config_dir: Path | None) -> dict[str, Mechanism]:
    return {
        name: build(part("mechanism", name, config_dir), "mechanism")
        for name in options("mechanism", config_dir)
    }


def _models(config_dir: Path | None) -> dict[str, object]:
    """Untrained models by name, or the `BadInput` that one of them ended in."""
    from functools import partial

    from fedkd.distill import as_classifier
    from fedkd.distill.laws import toy_for
    from fedkd.distill.private.probes import probes
    from fedkd.federation.randomness import SERVER, stream

    made: dict[str, object] = {}
    spaces = {}
    for name in options("model", config_dir):
        factory = partial(as_classifier, build(part("model", name, config_dir), "model"))
        try:
            spaces[name] = toy_for(factory).space
            made[name] = factory(spaces[name], stream(0, SERVER, 0, "initialise"))
        except BadInput as error:
            made[name] = error
    for layer, model in probes(next(iter(spaces.values()))).items():
        made[f"a module with {layer}"] = model
    return made


def _asked(name: str, model: object, mechanism: Mechanism) -> Pair:
    try:
        if isinstance(model, BadInput):
            raise model
        check_speaker(model, mechanism)  # type: ignore[arg-type]  # all the others are models
    except BadInput as error:
        found = f"found {error.found}, expected {error.expected}"
        return Pair(name, mechanism.name, False, found, error.remedy)
    return Pair(name, mechanism.name, True)


def _show(pairs: list[Pair], mechanisms: list[str]) -> None:
    may = {(pair.model, pair.mechanism): pair.may for pair in pairs}
    names = list(dict.fromkeys(pair.model for pair in pairs))
    wide = max(map(len, names)) + 2
    print(f"{'model':{wide}}" + "".join(f"{name:>14}" for name in mechanisms))
    for name in names:
        said = ("yes" if may[name, mechanism] else "no" for mechanism in mechanisms)
        print(f"{name:{wide}}" + "".join(f"{word:>14}" for word in said))
    for pair in pairs:
        if not pair.may:
            print(f"\n{pair.model} under {pair.mechanism}: {pair.reason}")
            if pair.remedy:
                print(f"  {pair.remedy}")
    print("\nUnder none nothing is protected, whatever answers: NOT PRIVATE.")
