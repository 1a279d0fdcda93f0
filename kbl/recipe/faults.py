"""What is wrong with a recipe, in words: each fault with its key, what was expected and what was received."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import ValidationError

from kbl.errors import UserError
from kbl.recipe.fields import Section


class Fault(NamedTuple):
    """One mistake: the dotted key that it is about, and what is wrong there."""

    key: str
    message: str


class RecipeError(UserError):
    """A recipe or an option with faults; the text lists every one of them.

    Args:
        origin: the file or the option that was read.
        faults: at least one.
    """

    def __init__(self, origin: str, faults: Sequence[Fault]) -> None:
        self.origin = origin
        self.faults = tuple(faults)
        lines = [f"{key}: {message}" if key else message for key, message in faults]
        heading = f"{origin}: " if len(lines) == 1 else f"{origin} has {len(lines)} faults:\n  "
        super().__init__(heading + "\n  ".join(lines))


def nearest(word: object, choices: Iterable[str]) -> str:
    """Return the hint `, did you mean "…"?` for a misspelt choice, or nothing where none is near."""
    lowered = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(word).lower(), lowered, n=1)
    return f', did you mean "{lowered[near[0]]}"?' if near else ""


def from_validation(error: ValidationError, schema: Any) -> list[Fault]:
    """Describe what pydantic found wrong with a value of the type `schema`."""
    return [
        _describe(dict(fault), schema)
        for fault in error.errors(include_url=False)
        # The first only follows from another fault; the second is `combination_faults`, which names its keys itself.
        if fault["type"] not in ("default_factory_not_called", "value_error")
        and not (
            fault["type"] == "too_short" and fault["input"]
        )  # its entries are at fault, not their number
    ]


def _describe(fault: dict[str, Any], schema: Any) -> Fault:
    key, section, kind = _place(schema, fault["loc"])
    received = fault["input"]
    choices: Sequence[str] = ()
    match fault["type"]:
        case "extra_forbidden":
            fields = list(section.model_fields) if section else []
            hint = nearest(key.rpartition(".")[2], fields) or f"; the keys here are {', '.join(fields)}"
            return Fault(key, f"unknown key{hint}")
        case "missing":
            what, received = _required(kind), None
        case "union_tag_invalid" | "union_tag_not_found":
            tag = fault["ctx"]["discriminator"].strip("'")
            key = f"{key}.{tag}".lstrip(".")
            choices, received = _names(kind), received.get(tag)
            what = f"one of {', '.join(map(show, choices))}"
        case _:
            what = _what(fault["msg"])
            choices = re.findall(r"'(\w[\w ]*)'", str(fault.get("ctx", {}).get("expected", "")))
    hint = nearest(received, choices) if isinstance(received, str) else ""
    return Fault(key, f"expected {what}, received {show(received)}{hint}")


def _place(schema: Any, location: Iterable[int | str]) -> tuple[str, type[Section] | None, Any]:
    """Follow a location of pydantic's through the schema.

    Returns:
        The dotted key as the recipe writes it, the section that key is in, and the type of its value.
    """
    keys: list[str] = []
    section, kind = None, schema
    for step in location:
        sections = _sections(kind)
        if step == "[key]":  # the fault is the key itself, which stands before
            continue
        if isinstance(step, int):  # an entry of a list
            keys.append(str(step))
            kind = get_args(kind)[0]
        elif get_origin(kind) is dict:  # a table of free keys
            keys.append(step)
            kind = get_args(kind)[1]
        elif len(sections) > 1:  # the member of a union, which a recipe does not write
            kind = next(member for member in sections if step in _names(member))
        else:
            section = sections[0]
            keys.append(step)
            field = section.model_fields.get(step)
            kind = field.annotation if field else None
    return ".".join(keys), section, kind


def _sections(kind: Any) -> list[type[Section]]:
    """Return the sections that a type admits."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return [kind]
    members = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return [section for member in members for section in _sections(member)]


def _names(kind: Any) -> tuple[str, ...]:
    """Return what tells a section, or any of a union of sections, from the others: its `name`, or `kind`."""
    fields = [section.model_fields for section in _sections(kind)]
    return tuple(n for field in fields for n in get_args((field.get("name") or field["kind"]).annotation))


def _required(kind: Any) -> str:
    """Say what a missing key takes."""
    choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
    if choices:
        return f"one of {', '.join(map(show, choices))}"
    return "a table" if _sections(kind) else {int: "an integer", float: "a number"}.get(kind, "a value")


def _what(message: str) -> str:
    """Turn pydantic's "Input should be a valid tuple" into "a list", as TOML calls it."""
    what = re.sub(r"^\w+ should (be|have) ", "", message).replace("a valid tuple", "a list").replace("'", '"')
    what = re.sub(r" item after validation.*", " entry", what)
    what = re.sub(r"^a valid dictionary.*", "a table", what).replace("a valid integer", "an integer")
    return f"a number {what}" if what.startswith(("greater", "less")) else what.replace("a valid ", "a ")


def show(value: object) -> str:
    """Write a value as TOML would, cut where it is long."""
    text = "nothing" if value is None else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
