"""The kinds of values that a recipe holds, and the table that refuses unknown keys."""

import os.path
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Backend: TypeAlias = Literal["torch", "jax", "tensorflow"]


def _expected(what: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "Input should be {expected}", {"expected": what})


def to_number(value: Any) -> Any:
    """Turn a fraction such as "8/255" into a float; leave other numbers as they are."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(Fraction(*map(Fraction, value.split("/"))))
    except (AttributeError, TypeError, ValueError, ArithmeticError):
        raise _expected('a number or a fraction such as "8/255"') from None


def _check_data_name(name: str) -> str:
    if name in ("digits", "mnist", "cifar10", "cifar100"):
        return name
    if name.endswith(".npz"):  # whole, so that a run finds its data again wherever it is called from
        return os.path.abspath(os.path.expanduser(name))
    raise _expected("'digits', 'mnist', 'cifar10', 'cifar100' or a path ending in '.npz'")


def _check_name(name: str) -> str:
    if name.replace("-", "").replace(".", "").replace("_", "").isalnum() and name[0] != ".":
        return name
    raise _expected("letters, digits and any of . _ - (it names the folder of the run)")


Number = Annotated[float, BeforeValidator(to_number)]
NonNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Fraction01 = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, le=1)]
# Strict: neither true nor "5" is an integer, and neither 1 nor "yes" is a flag.
Count = Annotated[int, Field(ge=1, strict=True)]
CountFromZero = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
DataName = Annotated[str, AfterValidator(_check_data_name)]
Name = Annotated[str, AfterValidator(_check_name)]


class Section(BaseModel):
    """A table of the recipe: immutable, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
