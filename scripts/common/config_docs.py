"""The option tables of config/README.md, from the schema: ``python -m scripts.common.config_docs`` rewrites them."""

from pathlib import Path
from typing import Any

import yaml

from scripts.common.config import load_schema, options
from scripts.common.files import write_text

README = Path(__file__).parents[2] / "config" / "README.md"
EMBEDDED = README.parent / "config.yaml"
START, END = "<!-- options: generated from the schema -->", "<!-- end of options -->"


def option_tables(schema: dict[str, Any], embedded: dict[str, Any]) -> str:
    """A Markdown table a section: option, the recipe's default, the embedded default where it differs, help."""
    lines: list[str] = []
    for section in ["", *(name for name, sub in schema["properties"].items() if _is_section(sub))]:
        sub = schema["properties"][section] if section else schema
        rows = {
            name: option
            for name, option in options(schema).items()
            if (name.split(".")[0] == section if section else "." not in name)
        }
        lines += [f"### `{section}`" if section else "### Top level", "", sub["description"], ""]
        lines += ["| option | default | embedded default | limits | |", "|---|---|---|---|---|"]
        lines += [_row(name, option, embedded) for name, option in rows.items()]
        lines.append("")
    return "\n".join(lines)


def _is_section(sub: dict[str, Any]) -> bool:
    return sub.get("type") == "object" and "default" not in sub


def _row(name: str, option: dict[str, Any], embedded: dict[str, Any]) -> str:
    value: Any = embedded
    for part in name.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
    own = "" if value is _ABSENT or value == option.get("default") else f"`{_show(value)}`"
    unit = f" ({option['x-unit']})" if "x-unit" in option else ""
    cells = [f"`{name}`", f"`{_show(option.get('default'))}`", own, _limits(option), option["description"] + unit]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_ABSENT = object()


def _show(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).replace("\n...", "").strip()


def _limits(option: dict[str, Any]) -> str:
    if "enum" in option:
        return ", ".join(_show(value) for value in option["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {option[name]}" for name, sign in signs.items() if name in option)


def main() -> None:
    """Rewrite the tables between the markers of config/README.md."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    tables = option_tables(load_schema(), yaml.safe_load(EMBEDDED.read_text(encoding="utf-8")))
    write_text(README, f"{before}{START}\n\n{tables}{END}{after}")


if __name__ == "__main__":
    main()
