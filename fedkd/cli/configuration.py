"""Turns what a person typed into one checked, plain configuration, by way of Hydra."""

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fedkd
from fedkd.cli.keys import GROUPS, PLAIN_GROUPS
from fedkd.cli.overrides import NAMED_GROUPS, parsed
from fedkd.cli.validation import (
    check,
    check_part,
    known_keys,
    nearest,
    parameters_of_target,
    target_of,
    unknown_key,
)
from fedkd.knowledge import BadInput

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.types import Override

CALLED_LATER = ("model", "generator")
"""Groups whose parts are made for a space, which is known when the data are."""


def app_root() -> Path:
    """The folder of conf/, server/ and clients/: in a wheel `fedkd/app`, else the checkout."""
    package = Path(fedkd.__file__).resolve().parent
    for folder in (package / "app", package.parent):
        if (folder / "conf" / "config.yaml").is_file() and (folder / "server").is_dir():
            return folder
    raise BadInput(
        "no conf/config.yaml beside fedkd",
        "a checkout, or an installed wheel that carries it",
        "install fedkd again",
    )


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The resolved configuration, checked: plain dicts, lists, numbers, texts and None.

    `choices` in it names the yaml taken from each group. A yaml of `config_dir` (a folder with
    the layout of conf/) goes before one of the same name in conf/. `BadInput` if a key does not
    exist, or a value has the wrong type or is out of range.
    """
    loader = _loader(config_dir)
    asked = parsed(overrides, loader)
    for override in asked:
        if override.is_sweep_override():
            raise BadInput(
                f"several values in {override.input_line}",
                "one value",
                f"add -m to try each, or write {override.key_or_group}=[a,b] for a list",
            )
    composed = _completed(_load(loader, "config", [_as_hydra(it, config_dir) for it in asked]))
    _refuse_unknown(asked, composed, config_dir)
    check(composed)
    for key, names in _models(composed).items():
        if not names:
            raise BadInput(
                f"no {key}",
                "names of conf/model, since the data yaml has no reference_model",
                f"add {key}=... from " + ", ".join(options("model", config_dir)),
            )
        for name in sorted(set(names)):
            part("model", name, config_dir)
    return composed


def part(group: str, name: str, config_dir: Path | None = None) -> dict[str, Any]:
    """The checked content of `conf/<group>/<name>.yaml`, or of the user's own."""
    _require_option(group, name, config_dir)
    with_user_code(config_dir)
    content = None if group in PLAIN_GROUPS else _read_alone(group, name, config_dir)
    if content is None:
        primary = group in GROUPS
        overrides = [f"{group}={name}"] if primary else []
        loaded = _load(_loader(config_dir), "config" if primary else f"{group}/{name}", overrides)
        content = loaded.get(group)
    if not isinstance(content, dict):
        raise BadInput(f"nothing about {group} in {group}/{name}.yaml", "its keys")
    check_part(group, content)
    return content


def part_of_file(file: Path) -> tuple[str, dict[str, Any]]:
    """The group and the checked content of a yaml file that lies in a folder named as its group."""
    group = file.resolve().parent.name
    if not file.is_file():
        raise BadInput(f"no file {file}", "a yaml file, or group/name such as aggregate/mean")
    known = sorted({*GROUPS, *NAMED_GROUPS})
    if group not in known:
        raise BadInput(
            f"{file} in a folder {group}",
            "a folder named as the group: " + ", ".join(known),
            f"move it, for example to aggregate/{file.name}",
        )
    return group, part(group, file.stem, file.resolve().parent.parent)


def build(content: Mapping[str, Any] | None, group: str = "", **handed: Any) -> Any:
    """What a yaml's `_target_` makes of the yaml's keys; keys that it does not take are left out.

    Of `handed` (`space`, `rng`, `schema`) it gets what it takes; where nothing is handed over, a
    model, a generator and any part whose yaml says `_partial_: true` stay a `functools.partial`
    over their keys. None for a part that is absent, or that has no `_target_`.
    """
    if content is None or "_target_" not in content:
        return None
    target = target_of(content, group)
    taken = parameters_of_target(target, group)
    arguments = {key: _built(value) for key, value in content.items() if key in taken}
    later = group in CALLED_LATER or bool(content.get("_partial_"))
    if later and not handed:
        return functools.partial(target, **arguments)
    asked = inspect.signature(target).parameters
    arguments |= {key: value for key, value in handed.items() if key in asked}
    return target(**arguments)


def sweep(overrides: Sequence[str], config_dir: Path | None = None) -> list[list[str]]:
    """One list of overrides for each run of a sweep: the product of every key's values.

    Values by Hydra's grammar: `a,b`, `range(0,5)`, `choice(a,b)`, `glob(*)` over a group.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    loader = _loader(config_dir)
    with _teaching():
        asked = parsed(overrides, loader)
        (runs,) = BasicSweeper.split_arguments(asked, None)
    if not runs:
        raise BadInput(f"no value left in {' '.join(overrides)}", "at least one run")
    return [list(run) for run in runs]


def swept_keys(overrides: Sequence[str], config_dir: Path | None = None) -> list[str]:
    """The keys that a sweep varies."""
    return [it.key_or_group for it in parsed(overrides, _loader(config_dir)) if _varies(it)]


def read_config(file: Path) -> dict[str, Any]:
    """The configuration in the `config.yaml` of a run; `BadInput` if it cannot be read."""
    from omegaconf import OmegaConf

    try:
        with _teaching():
            read: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}, which cannot be read ({error})", "a run's configuration") from None
    return dict(read)


def options(group: str, config_dir: Path | None = None) -> list[str]:
    """The names that may stand after `group=`."""
    return sorted({file.stem for folder in _folders(config_dir) for file in _yamls(folder / group)})


def groups(config_dir: Path | None = None) -> list[str]:
    """Every folder of yaml files."""
    found = {
        folder.name
        for root in _folders(config_dir)
        for folder in root.iterdir()
        if folder.is_dir() and _yamls(folder)
    }
    return sorted(found)


def _folders(config_dir: Path | None) -> list[Path]:
    """Where yaml files are looked for, first come first served."""
    packaged = app_root() / "conf"
    if config_dir is None:
        return [packaged]
    own = config_dir.expanduser().resolve()
    if not own.is_dir():
        raise BadInput(f"--config-dir {config_dir}", "a folder with the layout of conf/")
    if (own / "config.yaml").exists():
        raise BadInput(
            f"a config.yaml in --config-dir {config_dir}",
            "folders named after the groups, with yaml files in them",
            "put defaults of your own into <config-dir>/data/<name>.yaml",
        )
    return [own, packaged]


def with_user_code(config_dir: Path | None) -> None:
    """Lets a user's yaml name code that lies in the folder, or beside it."""
    own = None if config_dir is None else config_dir.expanduser().resolve()
    for folder in [] if own is None else [own, own.parent]:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _yamls(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml"))


def _loader(config_dir: Path | None) -> "ConfigLoaderImpl":
    """Hydra's loader over our folders. Its public door cannot put a folder before the primary's."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra.core.plugins import Plugins

    Plugins.instance()  # tells Hydra how to read a folder
    with_user_code(config_dir)
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    for folder in _folders(config_dir):
        path.append("fedkd", folder.as_uri())
    path.append("schema", "structured://")
    return ConfigLoaderImpl(config_search_path=path)


def _read_alone(group: str, name: str, config_dir: Path | None) -> Any:
    """A yaml that leans on no other, read without Hydra, which takes thirty times as long."""
    from omegaconf import OmegaConf

    files = (folder / group / f"{name}.yaml" for folder in _folders(config_dir))
    with _teaching():
        text = next(file for file in files if file.is_file()).read_text(encoding="utf-8")
        if re.search(r"^# *@package|^defaults *:|\$\{", text, re.MULTILINE):
            return None
        return OmegaConf.to_container(OmegaConf.create(text))


def _load(loader: "ConfigLoaderImpl", name: str, overrides: list[str]) -> dict[str, Any]:
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict

    with _teaching():
        composed = loader.load_configuration(name, overrides, run_mode=RunMode.RUN)
        choices = dict(composed.hydra.runtime.choices)
        with open_dict(composed):
            del composed["hydra"]
        plain: Any = OmegaConf.to_container(composed, resolve=True)
    named = {key: name for key, name in choices.items() if not key.startswith("hydra/")}
    return {**plain, "choices": named}


@contextlib.contextmanager
def _teaching() -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise into one sentence for a person."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        reason = error
        while isinstance(reason.__cause__, OmegaConfBaseException | YAMLError):
            reason = reason.__cause__
        text = " ".join(str(reason).split("Config search path")[0].split())
        text = text.split(" full_key:")[0]
        raise BadInput(
            f"a configuration that cannot be put together ({text})",
            "yaml files and key=value overrides that fit together",
        ) from error


def _as_hydra(override: "Override", config_dir: Path | None) -> str:
    """A choice of a yaml as it stands; a value as one that may be new, since we check it after."""
    key = override.key_or_group
    value = override.get_value_element_as_str()
    if key in GROUPS:
        name = override.value()
        if key == "generator" and name in (None, "none") and "none" not in options(key, config_dir):
            return f"~{key}"
        _require_option(key, str(name), config_dir)
        return f"{key}={name}"
    return f"++{key}={value}"


def _require_option(group: str, name: str, config_dir: Path | None) -> None:
    known = options(group, config_dir)
    if not known:
        near = nearest(group, groups(config_dir))
        raise BadInput(
            f"{group}/{name}",
            "one of the groups " + ", ".join(groups(config_dir)),
            f"did you mean {' or '.join(near)}?" if near else "",
        )
    if name not in known:
        near = nearest(name, known)
        raise BadInput(
            f"{group}={name}",
            "one of " + ", ".join(known),
            f"did you mean {' or '.join(f'{group}={it}' for it in near)}?" if near else "",
        )


def _refuse_unknown(
    asked: Sequence["Override"], composed: Mapping[str, Any], config_dir: Path | None
) -> None:
    """Names the key as it was typed, before the whole is checked."""
    known = known_keys(composed)
    for override in asked:
        key = override.key_or_group
        parents = {key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)}
        if key not in known and not any(_is_free(composed, parent) for parent in parents):
            if owners := _owners(key, config_dir):
                group = key.partition(".")[0]
                chosen = f"{group}={composed['choices'].get(group) or 'null'}"
                raise BadInput(
                    f"{key} with {chosen}",
                    f"a key of {chosen}",
                    f"{key} belongs to {' or '.join(owners[:3])}",
                )
            raise unknown_key(key, known)


def _owners(key: str, config_dir: Path | None) -> list[str]:
    """The choices of a group, as typed, whose yaml has the dotted key."""
    from omegaconf import OmegaConf

    group, _, name = key.partition(".")
    owners = []
    for option in options(group, config_dir) if group in GROUPS and name else []:
        file = next(it for it in (f / group / f"{option}.yaml" for f in _folders(config_dir))
                    if it.is_file())  # fmt: skip
        with contextlib.suppress(BadInput), _teaching():
            content: Any = OmegaConf.to_container(OmegaConf.load(file))
            content = content.get(group, content) if isinstance(content, dict) else {}
            owners += [f"{group}={option}"] if name in content else []
    return owners


def _is_free(composed: Mapping[str, Any], key: str) -> bool:
    """Whether `key` names something two levels down: its own check says what is right in it."""
    return key.count(".") >= 1 and key.split(".", maxsplit=1)[0] in composed


def _models(composed: Mapping[str, Any]) -> dict[str, list[str]]:
    """The model yamls that a configuration names, by the key that names them."""
    student = composed["student"]["model"]
    return {
        "clients.models": composed["clients"]["models"],
        "student.model": [student] if student else [],
    }


def _completed(composed: dict[str, Any]) -> dict[str, Any]:
    """Fills in what is short for something else: one true form goes into config.yaml."""
    from omegaconf import OmegaConf

    baselines = composed.get("baselines")
    if isinstance(baselines, bool):
        packaged = OmegaConf.load(app_root() / "conf" / "config.yaml")
        defaults: Any = OmegaConf.to_container(packaged.baselines)
        composed["baselines"] = {**defaults, "enabled": baselines}
    for group in GROUPS:
        composed.setdefault(group, None)
    data = composed["data"] if isinstance(composed["data"], dict) else {}
    reference = data.get("reference_model")
    student, clients = composed.get("student"), composed.get("clients")
    if isinstance(clients, dict) and clients.get("models") == [] and reference:
        clients["models"] = [reference]
    if isinstance(student, dict) and student.get("model") is None:
        student["model"] = reference
    return composed


def _built(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value)
        return {key: _built(item) for key, item in value.items()}
    return [_built(item) for item in value] if isinstance(value, list) else value


def _varies(override: "Override") -> bool:
    return bool(override.is_sweep_override())
