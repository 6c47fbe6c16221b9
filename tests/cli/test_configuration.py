"""A configuration is either what was asked for, or refused with the right spelling."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from fedkd.cli.configuration import (
    app_root,
    build,
    compose,
    options,
    part,
    read_config,
    sweep,
    swept_keys,
)
from fedkd.cli.keys import GROUPS, Configuration
from fedkd.cli.overrides import quoted, typed
from fedkd.cli.validation import check, flattened
from fedkd.knowledge import BadInput


def refusal(overrides: list[str], own: Path) -> str:
    with pytest.raises(BadInput) as refused:
        compose(overrides, own)
    text = str(refused.value)
    assert "Traceback" not in text
    assert "omegaconf" not in text.lower()
    assert "config search path" not in text.lower()
    return text


def test_nothing_asked_gives_the_defaults(own: Path) -> None:
    composed = compose([], own)
    assert composed["seed"] == 0
    assert composed["rounds"] == 3
    assert composed["query"] == {"kind": "public", "size": 300, "data": None, "path": None}
    assert composed["choices"]["aggregate"] == "mean"
    assert composed["generator"] is None
    assert composed["training"]["learning_rate"] == pytest.approx(1e-3)


def test_the_yaml_has_every_declared_key_and_no_other(own: Path) -> None:
    composed = compose([], own)
    declared = {field.name for field in dataclasses.fields(Configuration)}
    assert set(composed) == declared | set(GROUPS) | {"choices"}


def test_what_was_composed_is_plain_and_passes_its_own_check(own: Path) -> None:
    import json

    composed = compose(["clients.models=[mlp,mlp]", "faults=late", "faults.rounds=[2,3]"], own)
    check(json.loads(json.dumps(composed)))


def test_a_data_yaml_sets_defaults_that_the_command_line_overrides(own: Path) -> None:
    composed = compose(["data=ward"], own)
    assert composed["rounds"] == 2
    assert composed["choices"]["aggregate"] == "entropy_reduced"
    assert composed["query"]["size"] == 77
    mine = compose(["data=ward", "aggregate=median", "query.size=5", "rounds=9"], own)
    assert (mine["choices"]["aggregate"], mine["query"]["size"], mine["rounds"]) == ("median", 5, 9)


def test_the_reference_model_is_taken_where_none_is_named(own: Path) -> None:
    composed = compose([], own)
    assert composed["student"]["model"] == "mlp"
    assert composed["clients"]["models"] == ["mlp"]


@pytest.mark.parametrize("spelling", ["baselines=true", "baselines.enabled=true"])
def test_baselines_may_be_turned_on_by_either_spelling(own: Path, spelling: str) -> None:
    composed = compose([spelling, "baselines.fedavg_rounds=7"], own)
    assert composed["baselines"]["enabled"] is True
    assert composed["baselines"]["fedavg_rounds"] == 7


def test_baselines_may_be_turned_on_in_a_yaml(own: Path) -> None:
    composed = compose(["data=ward"], own)
    assert composed["baselines"]["enabled"] is True
    assert composed["baselines"]["fedavg_rounds"] == 20


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("round=3", "did you mean rounds"),
        ("sede=3", "did you mean seed"),
        ("training.local_epoch=3", "did you mean training.local_epochs"),
        ("local_epochs=3", "did you mean training.local_epochs"),
        ("clients.cuont=3", "did you mean clients.count"),
        ("aggregat=mean", "did you mean aggregate"),
        ("aggregate=medain", "did you mean aggregate=median"),
        ("data=digit", "did you mean data=digits"),
        ("data.pth=x", "did you mean data.path"),
        ("loss.wieght=2", "did you mean loss.weight"),
        ("model=mlp", "clients.models=[mlp]"),
        ("student.model=mpl", "did you mean model=mlp"),
        ("clients.models=[mlp,mpl]", "model=mpl"),
        ("query.data.x=3", "query.data"),
        ("zzz=1", "fedkd simulate --help"),
        ("rounds.x=1", "expected"),
        ("hydra.run.dir=x", "key of fedkd"),
        ("hydra/launcher=basic", "key of fedkd"),
        ("aggregate@other=mean", "key of fedkd"),
        ("choices.aggregate=median", "group=name"),
    ],
)
def test_a_key_that_does_not_exist_is_answered_with_the_nearest(
    own: Path, typed: str, meant: str
) -> None:
    assert meant in refusal([typed], own)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("rounds=abc", "a whole number from 1 to 9999"),
        ("rounds=0", "a whole number from 1 to 9999"),
        ("rounds=2.5", "a whole number"),
        ("rounds=10000", "from 1 to 9999"),
        ("rounds=1e23", "a whole number"),
        ("student.epochs=10001", "from 0 to 10000"),
        ("training.local_epochs=10001", "from 0 to 10000"),
        ("training.lesson_epochs=10001", "from 0 to 10000"),
        ("training.batch=100001", "from 1 to 100000"),
        ("query.size=1000001", "from 1 to 1000000"),
        ("data.records=99999999999999999999", "(beyond 2^53)"),
        (f"deadline={'9' * 400}", "(beyond 2^53)"),
        ("rounds=true", "a whole number"),
        ("rounds=null", "a whole number"),
        ("rounds='3'", "(text)"),
        ("rounds=[3]", "a whole number"),
        ("rounds={a:1}", "a whole number"),
        ("seed=-1", "from 0"),
        ("quorum=0", "from 0.01 to 1"),
        ("quorum=1.5", "from 0.01 to 1"),
        ("deadline=inf", "a number"),
        ("deadline=nan", "a number"),
        ("engine=flink", "inprocess | ray"),
        ("clients.cohort=on", "off | auto"),
        ("clients.models=mlp", "a list"),
        ("clients.models=[1]", "a list"),
        ("clients=4", "keys below clients"),
        ("training.learning_rate=fast", "a number"),
        ("training.steps=3", "records | lesson"),
        ("baselines=maybe", "true or false"),
        ("baselines.fedavg_learning_rates=[0.1,big]", "a list"),
        ("faults=late faults.rounds=[0]", "each a whole number of at least 1"),
        ("faults.fraction=2", "from 0 to 1"),
        ("loss.weight=-1", "from 0 to 100"),
        ("loss.temperature=0", "from 0.05"),
        ("aggregate=entropy_reduced aggregate.temperature=99", "from 0.01 to "),
        ("data.validation=1", "from 0 to 0.9"),
        ("data.ages=[1,2,3]", "[a whole number, a whole number]"),
        ("data.bins=[x]", "a list"),
        ("data.unit=stone", "mg | mmol"),
        ("data.table=xls", "csv | npz"),
        ("data.path=3", "text"),
        ("budget.epsilon=0", "of at least"),
        ("budget.delta=0.5", "from 1e-15 to 0.1"),
        ("query.size=null", "a whole number"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused(
    own: Path, typed: str, expected: str
) -> None:
    assert expected in refusal(typed.split(" "), own)


@pytest.mark.parametrize(
    "typed",
    [
        "rounds",
        "rounds==3",
        "=3",
        "==",
        "",
        "+new=1",
        "++rounds=1",
        "~rounds",
        "~aggregate",
        "clients.models=[mlp",
        "clients.models=mlp]",
        "rounds=(3",
        "rounds={a",
        "rounds='3",
        "rounds=${seed}",
        "out=${oc.env:HOME}",
        "rounds=1,2",
        "seed=range(3)",
        "aggregate=mean,median",
        "aggregate=[mean,median]",
        "aggregate=null",
        "aggregate=",
        "rounds=",
        "a b=3",
        "🩺=3",
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(own: Path, typed: str) -> None:
    assert "expected" in refusal([typed], own)


@pytest.mark.parametrize(
    "typed",
    [
        "aggregate._target_=os.system",
        "aggregate={_target_:os.system}",
        "training={_target_: os.system}",
        "data._partial_=true",
        "clients.models=[{_target_:os.system}]",
    ],
)
def test_a_command_line_names_no_code(own: Path, typed: str) -> None:
    assert "code is named in yaml files alone" in refusal([typed], own)


@pytest.mark.parametrize(
    "typed",
    [
        "generator.priors=[subprocess.getoutput]",
        "generator.priors=['subprocess.getoutput']",
        "generator.priors=[shapes,a.b.c]",
        "generator.priors={a: [subprocess.getoutput]}",
        "generator.prior=subprocess.getoutput",
    ],
)
def test_a_generators_function_is_named_in_a_yaml_alone(own: Path, typed: str) -> None:
    assert "code is named in yaml files alone" in refusal([typed], own)


def test_no_point_of_a_sweep_names_a_generators_function(own: Path) -> None:
    points = sweep(["generator.priors=[shapes],[subprocess.getoutput]"], own)
    assert "code is named in yaml files alone" in refusal(points[-1], own)


def test_a_generators_own_names_may_be_typed() -> None:
    words = ["query=synthetic", "generator=procedural", "generator.priors=[shapes,leaves]"]
    assert compose(words)["generator"]["priors"] == ["shapes", "leaves"]


def test_a_key_of_another_choice_says_of_which(own: Path) -> None:
    assert "belongs to partition=dirichlet or partition=quantity" in refusal(
        ["partition.alpha=0.1"], own
    )
    assert "belongs to loss=tuned" not in refusal(["loss.sharpness=2"], own)
    (own / "loss" / "tuned.yaml").write_text("_target_: no.such.loss\nsharpness: 1\n")
    assert "loss.sharpness belongs to loss=tuned" in refusal(["loss.sharpness=2"], own)


@pytest.mark.parametrize(
    ("text", "sign"), [("runs/unü", "ü"), ("runs/q'x", "'"), ("~/run", "~"), ("a#b", "#")]
)
def test_a_special_sign_is_named_and_the_quoted_form_works(own: Path, text: str, sign: str) -> None:
    said = refusal([f"out={text}"], own)
    assert f"with the sign {sign!r}" in said
    assert compose(shlex.split(said.partition("; write ")[2]), own)["out"] == text


@pytest.mark.parametrize(
    "text",
    ["a b", "q'x", 'a"b', "a$b'c\"d", "back\\", "a\\'b", "null", "TRUE", "007", "inf", "", "a,b"],
)
def test_a_text_stays_the_same_text_through_grammar_and_shell(own: Path, text: str) -> None:
    assert compose([f"out={quoted(text)}"], own)["out"] == text
    (override,) = shlex.split(typed("out", text))
    assert compose([override], own)["out"] == text


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("query=mismatched", "query.data"),
        ("query=synthetic", "generator"),
        ("lesson=minimum_subtracted", "gate"),
        ("budget.epsilon=1", "mechanism=none"),
        ("budget.delta=0.01", "mechanism=none"),
        ("mechanism.epsilon=1", "mechanism=none"),
    ],
)
def test_keys_that_need_another_one_say_which(own: Path, typed: str, why: str) -> None:
    assert why in refusal([typed, "generator=none", "gate=none"], own)


def test_a_whole_number_will_do_for_a_number(own: Path) -> None:
    assert compose(["deadline=60", "quorum=1"], own)["deadline"] == 60


def test_a_yaml_of_ones_own_goes_first_and_may_be_new(own: Path) -> None:
    (own / "faults").mkdir()
    (own / "faults" / "late.yaml").write_text("kind: late\nfraction: 0.75\nrounds: null\n")
    assert compose(["faults=late"], own)["faults"]["fraction"] == pytest.approx(0.75)
    assert compose(["aggregate=half_blind"], own)["choices"]["aggregate"] == "half_blind"
    assert {"half_blind", "mean"} <= set(options("aggregate", own))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("_target_: no_such_package.rule\n", "cannot be imported"),
        ("_target_: fedkd.knowledge.aggregate.mean.meen\n", "cannot be imported"),
        ("_target_: fedkd.knowledge.aggregate\n", "something to call"),
        ("_target_: parts_of_the_ward.A_NUMBER\n", "something to call"),
        ("_target_: 3\n", "dotted name"),
        ("_target_: ''\n", "dotted name"),
        ("_target_: fedkd.knowledge.aggregate.mean.mean\nsize: 3\n", "aggregate.size"),
        ("size: 3\n", "_target_"),
        ("- 1\n", "expected"),
        ("a: [\n", "expected"),
        ("", "expected"),
    ],
)
def test_a_broken_yaml_of_ones_own_is_refused_in_a_sentence(own: Path, text: str, why: str) -> None:
    (own / "aggregate" / "mine.yaml").write_text(text)
    assert why in refusal(["aggregate=mine"], own)


def test_a_config_yaml_of_ones_own_is_not_taken_for_ours(own: Path) -> None:
    (own / "config.yaml").write_text("seed: 1\n")
    assert "config.yaml" in refusal([], own)


def test_a_config_dir_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert "--config-dir" in refusal([], tmp_path / "none")


def test_a_part_is_read_by_its_name(own: Path) -> None:
    assert part("model", "mlp", own)["hidden"] == 64
    assert part("data", "ward", own)["path"] == "ward.csv"
    with pytest.raises(BadInput, match="did you mean model=mlp"):
        part("model", "mpl", own)
    with pytest.raises(BadInput, match="one of the groups"):
        part("modle", "mlp", own)


def test_what_is_built_gets_its_keys_and_no_others(own: Path) -> None:
    path, ages, _, unit = build(compose(["data.path=a.csv", "data.ages=[1,2]"], own)["data"])
    assert (path, ages, unit) == ("a.csv", [1, 2], "mg")
    assert build(None) is None
    assert build(part("model", "mlp", own), "model").keywords == {"hidden": 64}


def test_a_sweep_is_the_product_of_its_values(own: Path) -> None:
    runs = sweep(["seed=0,1", "aggregate=mean,median", "rounds=2"], own)
    assert runs == [
        [f"seed={seed}", f"aggregate={rule}", "rounds=2"]
        for seed in (0, 1)
        for rule in ("mean", "median")
    ]
    assert swept_keys(["seed=0,1", "aggregate=mean,median", "rounds=2"], own) == [
        "seed",
        "aggregate",
    ]


def test_a_sweep_takes_ranges_choices_and_globs(own: Path) -> None:
    assert sweep(["seed=range(0,3)"], own) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert sweep(["rounds=choice(1,5)"], own) == [["rounds=1"], ["rounds=5"]]
    globbed = [run[0] for run in sweep(["aggregate=glob(m*)"], own)]
    assert {"aggregate=mean", "aggregate=median"} <= set(globbed)
    assert sweep(["baselines=true,false"], own)[0] == ["baselines.enabled=True"]
    assert sweep(["clients.models=[mlp,mlp],[mlp]"], own)[0] == ["clients.models=[mlp,mlp]"]


@pytest.mark.parametrize("typed", ["seed=interval(0,1)", "seed=range(", "aggregate=glob(zz*)"])
def test_a_sweep_that_cannot_be_made_is_refused(own: Path, typed: str) -> None:
    with pytest.raises(BadInput):
        sweep([typed], own)


def test_every_run_of_a_sweep_composes(own: Path) -> None:
    for run in sweep(["aggregate=mean,median", "clients.models=[mlp],[mlp,mlp]"], own):
        compose(run, own)


def test_every_declared_key_can_be_named_in_a_refusal() -> None:
    assert {"rounds", "training.batch", "baselines.fedavg_rounds"} <= set(flattened(Configuration))


def test_a_configuration_that_cannot_be_read_back_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: [\n")
    with pytest.raises(BadInput):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_the_packaged_defaults_and_every_packaged_yaml_are_right() -> None:
    compose([])
    root = app_root() / "conf"
    for file in sorted(root.glob("*/*.yaml")):
        part(file.parent.name, file.stem)
