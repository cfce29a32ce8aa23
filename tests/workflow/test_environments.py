"""The environments that rules name, and the ways of installing that README names, ask for the same versions."""

import re
import tomllib

import pytest
import yaml

from tests.workflow.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRA_OF = {"cpu": "cpu", "gpu": "gpu", "llm": "llm", "tensorrt": "tensorrt"}


def name_of(requirement: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", requirement).group().lower()


def requirements(extra: str) -> dict[str, str]:
    """Requirements of an extra and all it includes, and of the project itself, by name."""
    found = {name_of(text): text for text in PROJECT["dependencies"]}
    queue = [extra]
    while queue:
        for text in PROJECT["optional-dependencies"][queue.pop()]:
            if text.startswith("embed-recipe["):
                queue += text.removeprefix("embed-recipe[").rstrip("]").split(",")
            else:
                found[name_of(text)] = text
    return found


@pytest.mark.parametrize("environment", sorted(EXTRA_OF))
def test_versions_of_an_environment_are_those_of_its_extra(environment: str) -> None:
    wanted = requirements(EXTRA_OF[environment])
    content = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text(encoding="utf-8"))
    (packages,) = [item["pip"] for item in content["dependencies"] if isinstance(item, dict)]
    packages = [text for text in packages if not text.startswith("--")]
    assert packages
    for text in packages:
        assert text == wanted.get(name_of(text)), f"envs/{environment}.yaml"


@pytest.mark.parametrize("environment", sorted(EXTRA_OF))
def test_an_environment_has_what_its_extra_names(environment: str) -> None:
    wanted = {
        name_of(text)
        for text in PROJECT["optional-dependencies"][EXTRA_OF[environment]]
        if not text.startswith("embed-recipe[")
    }
    text = (ROOT / f"envs/{environment}.yaml").read_text(encoding="utf-8")
    (packages,) = [item["pip"] for item in yaml.safe_load(text)["dependencies"] if isinstance(item, dict)]
    assert wanted <= {name_of(line) for line in packages if not line.startswith("--")}


def test_cpu_and_gpu_builds_do_not_mix() -> None:
    cpu, gpu = requirements("cpu"), requirements("gpu")
    assert {"faiss-cpu", "onnxruntime"} <= set(cpu)
    assert {"faiss-gpu-cu12", "onnxruntime-gpu"} <= set(gpu)
    assert not {"faiss-cpu", "onnxruntime"} & set(gpu)


def test_every_rule_environment_exists() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("rules/*.smk"))
    named = set(re.findall(r'environment\([^)]*?"(\w+)"', text)) | set(re.findall(r'"(cpu|gpu)"', text))
    assert named >= set(EXTRA_OF)
    for name in named:
        assert (ROOT / f"envs/{name}.yaml").is_file()
